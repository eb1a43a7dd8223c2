"""The photos of a batch: a folder, a glob pattern, or a file of JSON lines."""

from __future__ import annotations

import glob
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.errors import ParameterError
from client.files.names import digest_of, part_of
from client.files.photo import SUFFIXES
from client.frames.frame import Frame
from client.text import quoted, reason

_MAX_LINE: Final = 64 * 2**10
_GLOB: Final = frozenset("*?[")
_AMBIGUOUS: Final = re.compile("__|_/|/_")
# The batch's own files in the folder of results.
_RESERVED: Final = re.compile(r"(ledger|report|sheet)([-.].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One photo: ``name`` is the folder of its results, unique in the batch; ``crop`` is ``x,y,size`` or None."""

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
            ParameterError: the text is not of that form.
        """
        index, _, count = text.partition("/")
        if index.isdecimal() and count.isdecimal() and index.isascii() and 0 <= int(index) < int(count) <= 100_000:
            return cls(int(index), int(count))
        raise ParameterError(f"invalid shard {quoted(text, limit=40)}: expected i/n, i from 0 to n-1, for example 0/4")


def items(source: str, shard: Shard | None = None) -> Iterator[Item]:
    """Yield the photos that a source names, in an order of their names that is the same every time.

    Args:
        source: a folder (without its subfolders), a glob pattern (``**`` for folders), one photo, or a ``.jsonl`` file
            with an object on each line: ``photo``, a path relative to the file or an absolute one, and optionally
            ``crop`` (``x,y,size``) and ``name``.
        shard: which part; all by default.

    Raises:
        ParameterError: there is no such thing, or a line of the file cannot be read.
    """
    chosen = shard or Shard()
    for number, item in enumerate(_every(source)):
        if number % chosen.count == chosen.index:
            yield item


def left_out(source: str) -> dict[str, int]:
    """Return the entries of a folder that are not taken as photos, counted by kind: suffixes, and ``folder``."""
    path = Path(source)
    if not path.is_dir():
        return {}
    counts: Counter[str] = Counter()
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                counts["folder"] += 1
            elif entry.name.startswith("."):
                counts["hidden file"] += 1
            elif not entry.name.lower().endswith(SUFFIXES):
                counts[part_of(Path(entry.name).suffix.lower()[1:]) or "file without a suffix"] += 1
    return dict(sorted(counts.items()))


def name_of(path: str) -> str:
    """Return a folder's name for the results of a photo: its path, made safe, with a digest where that changed it."""
    text = path.replace(os.sep, "__").lstrip("._")
    safe = part_of(text or "photo")
    # Another path could give the same text.
    is_plain = safe == text and path.startswith(text[:1]) and not _AMBIGUOUS.search(path)
    if is_plain and not _RESERVED.fullmatch(safe):
        return safe
    return f"{safe.encode()[:80].decode(errors='ignore')}-{digest_of(path)}"


def _every(source: str) -> Iterator[Item]:
    path = Path(source)
    if path.is_dir():
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith("."))
        for name in names:
            yield Item(name_of(name), str(path / name))
    elif path.suffix == ".jsonl":
        yield from _lines(path)
    elif path.exists():
        # Before patterns: `IMG[1].png` may be a file.
        yield Item(name_of(path.name), str(path))
    elif _GLOB & set(source):
        # The longest folder without a pattern is left out of the names.
        fixed = Path(*_before_pattern(Path(source).parts))
        for found in sorted(glob.iglob(source, recursive=True)):  # noqa: PTH207 - absolute and relative alike
            if found.lower().endswith(SUFFIXES):
                yield Item(name_of(os.path.relpath(found, fixed)), found)
    else:
        raise ParameterError(f"cannot find {quoted(source)}: expected a folder, a pattern, a photo or a .jsonl file")


def _before_pattern(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts[:-1]:
        if _GLOB & set(part):
            return
        yield part


def _lines(path: Path) -> Iterator[Item]:
    try:
        # A pipe would keep the open waiting.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ParameterError(f"cannot read {quoted(path)}: not a regular file")
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE + 1), b""), start=1):
                if line.strip():
                    yield _item(line, path, number)
    except OSError as problem:
        raise ParameterError(f"cannot read {quoted(path)}: {reason(problem)}") from problem


def _item(line: bytes, path: Path, number: int) -> Item:
    try:
        value: Any = json.loads(line) if len(line) <= _MAX_LINE else None
    except (ValueError, RecursionError):
        value = None
    what = f"line {number} of {quoted(path)}"
    if not isinstance(value, dict) or not isinstance(value.get("photo"), str) or not value["photo"]:
        raise ParameterError(f'{what} is not an object with a "photo"')
    if unknown := sorted(set(value) - {"photo", "crop", "name"}):
        raise ParameterError(f"{what} has an unknown key {quoted(unknown[0], limit=40)}: expected photo, crop and name")
    crop, name = value.get("crop"), value.get("name", value["photo"])
    if not (crop is None or isinstance(crop, str)) or not isinstance(name, str):
        raise ParameterError(f"{what} has a crop or a name that is not a string")
    if "\0" in value["photo"]:
        raise ParameterError(f"{what} has a path with a zero byte")
    try:
        os.fsencode(value["photo"] + name)
    except UnicodeEncodeError as problem:
        raise ParameterError(f"{what} has a path or a name with half a character") from problem
    if crop is not None:
        Frame.parse_crop(crop)
    return Item(name_of(name), str(path.parent / value["photo"]), crop)
