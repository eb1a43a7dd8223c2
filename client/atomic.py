"""Files read within a bound, and written whole or not at all."""

from __future__ import annotations

import filecmp
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

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


class Sink(Protocol):
    """What a file's bytes go to."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


Content = bytes | Callable[[Sink], object]


class Draft:
    """Files that are written whole: each to a temporary name beside its own, and then all are renamed.

    Use it with ``with``: what is not published by the end is removed. Missing folders are created.

    Args:
        force: replace existing files; otherwise a file that exists with other bytes is an error.
    """

    def __init__(self, *, force: bool = True) -> None:
        self._force = force
        self._temporary: dict[Path, Path] = {}
        self._made: set[Path] = set()

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_error: object) -> None:
        for source in self._temporary.values():
            with suppress(OSError):
                source.unlink(missing_ok=True)
        for folder in self._made:
            with suppress(OSError):
                # If nothing came into it.
                folder.rmdir()

    def add(self, path: Path, content: Content) -> None:
        """Write a file: its bytes, or what a function writes, so that a large picture is never whole in memory.

        Raises:
            OutputError: it cannot be written, or exists.
        """
        try:
            if not path.parent.exists():
                self._made.add(path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise OutputError(f"cannot write {quoted(path)}: it is a directory")
            if path.exists() and not path.is_file():
                raise OutputError(f"cannot write {quoted(path)}: not a regular file")
            temporary = self._temporary[path] = path.with_name(f".{secrets.token_hex(8)}.tmp")
            with temporary.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(_Plain(file))
                file.flush()
                os.fsync(file.fileno())
            if not self._force and os.path.lexists(path) and not filecmp.cmp(path, temporary, shallow=False):
                refuse_to_replace([path])
        except (OSError, ValueError) as problem:
            raise OutputError(f"cannot write to {quoted(path.parent)}: {reason(problem)}") from problem

    def publish(self) -> None:
        """Rename the files; what fails between two renames leaves those that are done.

        Raises:
            OutputError: one cannot be renamed.
        """
        for path, source in self._temporary.items():
            try:
                source.replace(path)
            except OSError as problem:
                raise OutputError(f"cannot write to {quoted(path.parent)}: {reason(problem)}") from problem


class _Plain:
    """A file that only takes bytes: Pillow would write to a descriptor itself, and say nothing of a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def write_all(contents: Mapping[Path, Content], *, force: bool = True) -> None:
    """Write each file whole: all go to temporary names beside their own, and then all are renamed.

    Missing folders are created. What fails before the first rename leaves no file behind; what fails between two
    renames leaves those that are done.

    Args:
        contents: by path, as for ``Draft.add``.
        force: replace existing files; otherwise a file that exists with other bytes is an error.

    Raises:
        OutputError: a file cannot be written, or exists; the temporary files are gone then.
    """
    with Draft(force=force) as draft:
        for path, content in contents.items():
            draft.add(path, content)
        draft.publish()


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


def _without_waiting(path: str, flags: int) -> int:
    # A plain open of a named pipe would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _size(limit: int) -> str:
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if limit >= unit:
            return f"{limit / unit:g} {name}"
    return f"{limit} bytes"
