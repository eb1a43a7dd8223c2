"""TIFF files, byte by byte."""

from __future__ import annotations

import struct


def tiff(entries: dict[int, tuple[int, int, int]], data: bytes, *, order: str = "<", big: bool = False) -> bytes:
    """A file with one directory; a value of -1 is the place of ``data``."""
    width, head = ("Q", struct.pack(f"{order}HHHQ", 43, 8, 0, 16)) if big else ("I", struct.pack(f"{order}HI", 42, 8))
    start = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
    place = 2 + len(head) + len(start) + len(entries) * (20 if big else 12) + (8 if big else 4)
    rows = b"".join(
        struct.pack(f"{order}HH{width}", code, kind, count)
        + (
            struct.pack(f"{order}HH", value, 0).ljust(8 if big else 4, b"\0")
            if kind == 3
            else struct.pack(f"{order}{width}", place if value < 0 else value)
        )
        for code, (kind, count, value) in sorted(entries.items())
    )
    return (b"II" if order == "<" else b"MM") + head + start + rows + bytes(8 if big else 4) + data
