"""The photos of a batch: a folder, a glob pattern, or a file of JSON lines."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.commands.report import part_of
from client.errors import ParameterError
from client.files.atomic import shown
from client.files.photo import FORMATS, Crop

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
assert {"JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"} == set(FORMATS)
_MAX_LINE: Final = 64 * 2**10
_GLOB: Final = frozenset("*?[")


@dataclass(frozen=True)
class Item:
    """One photo: ``name`` is of the folder of its results, unique in the batch; ``crop`` is ``x,y,size`` or None."""

    name: str
    path: str
    crop: str | None = None


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th photo, from the ``index``-th on; 0 of 1 is all of them."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``, i from 0 to n-1.

        Raises:
            ParameterError: it is something else.
        """
        index, _, count = text.partition("/")
        if index.isdecimal() and count.isdecimal() and index.isascii() and 0 <= int(index) < int(count) <= 100_000:
            return cls(int(index), int(count))
        raise ParameterError(f"A shard is i/n with i from 0 to n-1, for example 0/4, not '{shown(text, limit=40)}'.")


def items(source: str, shard: Shard | None = None) -> Iterator[Item]:
    """The photos that a source names, in an order of their names that is the same every time.

    Args:
        source: a folder (its photos, not those of its folders), a glob pattern (``**`` for folders), or a ``.jsonl``
            file with an object on each line: ``photo``, a path beside the file or an absolute one, and optionally
            ``crop`` (``x,y,size``) and ``name``.
        shard: which part; all by default.

    Raises:
        ParameterError: there is no such thing, or a line of the file cannot be read.
    """
    chosen = shard or Shard()
    for number, item in enumerate(_every(source)):
        if number % chosen.count == chosen.index:
            yield item


def name_of(path: str) -> str:
    """A folder's name for the results of a photo: its path, made safe, with a digest where that changed it."""
    text = path.replace(os.sep, "__").lstrip("._") or "photo"
    safe = part_of(text)
    return safe if safe == text else f"{safe[:80]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _every(source: str) -> Iterator[Item]:
    path = Path(source)
    if path.is_dir():
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith("."))
        for name in names:
            yield Item(name_of(name), str(path / name))
    elif path.suffix == ".jsonl":
        yield from _lines(path)
    elif _GLOB & set(source):
        # The longest folder without a pattern is left out of the names.
        fixed = Path(*_before_pattern(Path(source).parts))
        for found in sorted(glob.iglob(source, recursive=True)):  # noqa: PTH207 - absolute and relative alike
            if found.lower().endswith(SUFFIXES):
                yield Item(name_of(os.path.relpath(found, fixed)), found)
    elif path.exists():
        yield Item(name_of(path.name), str(path))
    else:
        raise ParameterError(f"{shown(source)} is neither a folder, nor a pattern, nor a .jsonl file that is there.")


def _before_pattern(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts[:-1]:
        if _GLOB & set(part):
            return
        yield part


def _lines(path: Path) -> Iterator[Item]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE + 1), b""), start=1):
                if line.strip():
                    yield _item(line, path, number)
    except OSError as problem:
        raise ParameterError(f"{shown(path)} cannot be read: {problem.strerror}.") from None


def _item(line: bytes, path: Path, number: int) -> Item:
    try:
        value: Any = json.loads(line) if len(line) <= _MAX_LINE else None
    except (ValueError, RecursionError):
        value = None
    what = f"Line {number} of {shown(path)}"
    if not isinstance(value, dict) or not isinstance(value.get("photo"), str) or not value["photo"]:
        raise ParameterError(f'{what} is no object with a "photo".')
    if unknown := sorted(set(value) - {"photo", "crop", "name"}):
        raise ParameterError(f"{what} has '{shown(unknown[0], limit=40)}', which is none of photo, crop and name.")
    crop, name = value.get("crop"), value.get("name", value["photo"])
    if not (crop is None or isinstance(crop, str)) or not isinstance(name, str):
        raise ParameterError(f"{what} has a crop or a name that is no text.")
    if crop is not None:
        Crop.parse(crop)
    return Item(name_of(name), str(path.parent / value["photo"]), crop)
