"""Files read with a bound, and written whole."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from client.errors import ClientError, OutputError


def shown(text: str | os.PathLike[str], *, limit: int = 200) -> str:
    """Return a path or a foreign text as it may stand in a message: one printable, bounded line."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(os.fspath(text).split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


def read_bounded(path: str | os.PathLike[str], *, limit: int, error: type[ClientError]) -> bytes:
    """Read a regular file of at most ``limit`` bytes; raise ``error`` with one sentence otherwise."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise error(f"{shown(path)} is not a regular file.")
            # One byte more than the bound tells a file that grew since.
            data = file.read(limit + 1) if status.st_size <= limit else b""
            if status.st_size > limit or len(data) > limit:
                raise error(f"{shown(path)} is larger than {limit / 2**20:g} MiB, the most that is read.")
            return data
    except FileNotFoundError:
        raise error(f"{shown(path)} does not exist.") from None
    except IsADirectoryError:
        raise error(f"{shown(path)} is a directory, not a file.") from None
    except (OSError, ValueError) as problem:
        raise error(f"{shown(path)} cannot be read: {_reason(problem)}.") from None


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write each file whole: all go to temporary names beside their own, and then all are renamed.

    Missing folders are created; existing files are replaced. What fails before the first rename leaves no file behind;
    what fails between two renames leaves those that are done.

    Raises:
        OutputError: a file cannot be written; the temporary files are gone then.
    """
    temporary: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise OutputError(f"{shown(path)} is a directory, so the result cannot be written there.")
            temporary[path] = path.with_name(f".{secrets.token_hex(8)}.tmp")
            with temporary[path].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, source in temporary.items():
            source.replace(path)
    except OSError as problem:
        raise OutputError(f"The results cannot be written to {shown(path.parent)}: {_reason(problem)}.") from None
    finally:
        for source in temporary.values():
            with suppress(OSError):
                source.unlink(missing_ok=True)


def _without_waiting(path: str, flags: int) -> int:
    # A plain open of a named pipe would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _reason(problem: Exception) -> str:
    return (getattr(problem, "strerror", None) or str(problem)).rstrip(".").lower()
