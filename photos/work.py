"""The work that a file causes, counted before Pillow opens it: for every part, and in every scan, it does something.

Raises `TooMuchWork`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

MAX_SCANS: Final = 100
# Decoding takes time in proportion to scans times pixels: 100 megapixels in 15 scans are a quarter of a minute.
MAX_WORK: Final = 1_500_000_000
# Pillow takes 5 to 30 microseconds for each.
MAX_PARTS: Final = 100_000
# Pillow joins metadata segment by segment, and copies all of it for each.
_MAX_COPIED: Final = 10_000_000_000
_SCAN: Final = b"\xff\xda"
_TIFF_JPEG: Final = (6, 7)
# Codes and sizes of what bounds a TIFF file's work: width, height, compression, and the places of strips and tiles.
_WIDTH, _HEIGHT, _COMPRESSION, _STRIPS, _TILES = 256, 257, 259, 273, 324
_SIZES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}


class TooMuchWork(Exception):
    """The file would take too long to decode; the message says what it is, as ``a JPEG file of 2302 scans``."""


def check_parts(data: bytes) -> None:
    """Check how many parts a file has: chunks, segments, blocks, runs, strips or tiles.

    Damage is left for the decoder.

    Raises:
        TooMuchWork: more than any photo.
    """
    for start, name, parts in _FORMATS:
        if data.startswith(start) and next(islice(parts(data), MAX_PARTS, None), None) is not None:
            raise TooMuchWork(f"a {name} file of more than {MAX_PARTS} parts")
    if data.startswith(b"\xff\xd8"):
        _check_segments(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data)


def check_scans(count: int, pixels: int, *, most: int = MAX_WORK, name: str = "JPEG") -> None:
    """Check how often a file paints its pixels; a baseline JPEG file does it once, others about ten times.

    Args:
        count: scans, as :func:`scans` counts them.
        pixels: pixels of the picture.
        most: pixels times scans.
        name: the format.

    Raises:
        TooMuchWork: too often.
    """
    if count > MAX_SCANS or count * pixels > most:
        raise TooMuchWork(f"a {name} file of {count} scans")


def scans(data: bytes) -> int:
    """Return how often JPEG data begins a scan, thumbnails included."""
    return data.count(_SCAN)


def _png(data: bytes) -> Iterator[int]:
    at = 8
    while at + 8 <= len(data):
        yield at
        at += 12 + int.from_bytes(data[at : at + 4])


def _riff(data: bytes) -> Iterator[int]:
    at = 12
    while at + 8 <= len(data):
        yield at
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _gif(data: bytes) -> Iterator[int]:
    """The blocks before the first frame."""
    at = 13 + (3 << (data[10] % 8 + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    while data[at : at + 1] == b"!":
        yield at
        at += 2
        while at < len(data) and data[at]:
            yield at
            at += 1 + data[at]
        at += 1


def _bmp(data: bytes) -> Iterator[int]:
    """The runs of a compressed file, at two bytes each: Pillow expands them in Python."""
    if len(data) >= 34 and int.from_bytes(data[30:34], "little") in (1, 2):
        # Twenty of them cost as much as a part.
        yield from range(int.from_bytes(data[10:14], "little"), len(data), 40)


_FORMATS: Final[tuple[tuple[bytes, str, Callable[[bytes], Iterator[int]]], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", _png),
    (b"RIFF", "WebP", _riff),
    (b"GIF8", "GIF", _gif),
    (b"BM", "BMP", _bmp),
)


def _check_segments(data: bytes) -> None:
    """Check the segments of a JPEG file before its first scan."""
    at = count = 0
    while at + 4 <= len(data) and data[at : at + 2] != _SCAN:
        kind = data[at + 1]
        if data[at] != 0xFF or kind in (0, 0xFF):  # bytes between segments
            at += 1
        else:
            has_length = kind != 1 and not 0xD0 <= kind <= 0xD8
            at += 2 + (int.from_bytes(data[at + 2 : at + 4]) if has_length else 0)
        count += 1
        if count * at > _MAX_COPIED:
            raise TooMuchWork("a JPEG file of more segments than any photo")
    if (count := data.count(b"8BIM", 0, at)) > MAX_PARTS:
        raise TooMuchWork(f"a JPEG file of {count} parts")


def _check_tiff(data: bytes) -> None:
    """Check the first directory of a TIFF file."""
    try:
        found = _directory(data)
        count = max(found.get(_STRIPS, (1, 0))[0], found.get(_TILES, (1, 0))[0])
        if count > MAX_PARTS:
            raise TooMuchWork(f"a TIFF file of {count} strips or tiles")
        if found.get(_COMPRESSION, (1, 0))[1] in _TIFF_JPEG and (beyond := scans(data) - count) > 0:
            # A strip or tile of a baseline file has one.
            check_scans(beyond + 1, found[_WIDTH][1] * found[_HEIGHT][1], name="TIFF")
    except (struct.error, KeyError, OverflowError):
        return


def _directory(data: bytes) -> dict[int, tuple[int, int]]:
    """Return the largest count and the largest value of the entries of each code."""
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    head, entry, inside = ("Q", "HHQ", 8) if version == 43 else ("H", "HHI", 4)
    (start,) = struct.unpack_from(f"{order}{'Q' if version == 43 else 'I'}", data, 8 if version == 43 else 4)
    (entries,) = struct.unpack_from(f"{order}{head}", data, start)
    at = start + struct.calcsize(f"{order}{head}")
    found: dict[int, tuple[int, int]] = {}
    for _ in range(min(entries, 2**16)):
        code, kind, count = struct.unpack_from(f"{order}{entry}", data, at)
        at += struct.calcsize(f"{order}{entry}")
        is_short = kind in _SIZES and struct.calcsize(_SIZES[kind]) <= inside
        value = struct.unpack_from(f"{order}{_SIZES[kind]}", data, at)[0] if is_short else 0
        # Decoders take one of the entries of the same code.
        others = found.get(code, (0, 0))
        found[code] = max(count, others[0]), max(value, others[1])
        at += inside
    return found
