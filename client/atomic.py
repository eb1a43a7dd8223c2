"""Files read within a bound, and written whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from client.errors import ClientError, OutputError
from client.text import quoted, reason

_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}\.tmp")


def read_bounded(path: str | os.PathLike[str], *, limit: int, error: type[ClientError]) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        error: it is missing, larger, a directory, a pipe or a device, or cannot be read.
    """
    what = f"cannot read {quoted(path)}"
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise error(f"{what}: not a regular file")
            # One byte more than the bound shows a file that grew since.
            data = file.read(limit + 1) if status.st_size <= limit else b""
            if status.st_size > limit or len(data) > limit:
                raise error(f"{what}: larger than {_size(limit)}")
            return data
    except FileNotFoundError as problem:
        raise error(f"{what}: the file does not exist") from problem
    except IsADirectoryError as problem:
        raise error(f"{what}: it is a directory") from problem
    except (OSError, ValueError) as problem:
        raise error(f"{what}: {reason(problem)}") from problem


def write_all(contents: Mapping[Path, bytes], *, force: bool = True) -> None:
    """Write each file whole: all go to temporary names beside their own, and then all are renamed.

    Missing folders are created. What fails before the first rename leaves no file behind; what fails between two
    renames leaves those that are done.

    Args:
        contents: bytes by path.
        force: replace existing files; otherwise a file that exists with other bytes is an error.

    Raises:
        OutputError: a file cannot be written, or exists; the temporary files are gone then.
    """
    if not force:
        refuse_to_replace(path for path, data in contents.items() if not _holds(path, data))
    temporary: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise OutputError(f"cannot write {quoted(path)}: it is a directory")
            if path.exists() and not path.is_file():
                raise OutputError(f"cannot write {quoted(path)}: not a regular file")
            temporary[path] = path.with_name(f".{secrets.token_hex(8)}.tmp")
            with temporary[path].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, source in temporary.items():
            source.replace(path)
    except (OSError, ValueError) as problem:
        raise OutputError(f"cannot write to {quoted(path.parent)}: {reason(problem)}") from problem
    finally:
        for source in temporary.values():
            with suppress(OSError):
                source.unlink(missing_ok=True)


def refuse_to_replace(paths: Iterable[Path]) -> None:
    """Raise ``OutputError`` where one of the files exists."""
    for path in paths:
        if os.path.lexists(path):
            raise OutputError(f"{quoted(path)} already exists: pass --force to replace it, or --out for another folder")


def sweep(folder: Path) -> None:
    """Remove what a killed run left of :func:`write_all` in a folder and its direct subfolders."""
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in folder.glob(pattern):
            if _TEMPORARY.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is missing, or already has these bytes."""
    try:
        return path.stat().st_size == len(data) and path.is_file() and path.read_bytes() == data
    except FileNotFoundError:
        return not os.path.lexists(path)
    except OSError:
        # The write itself says what is wrong.
        return True


def _without_waiting(path: str, flags: int) -> int:
    # A plain open of a named pipe would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _size(limit: int) -> str:
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if limit >= unit:
            return f"{limit / unit:g} {name}"
    return f"{limit} bytes"
