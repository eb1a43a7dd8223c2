"""PNG files by hand: what Pillow does not write."""

from __future__ import annotations

import struct
import zlib

import numpy as np

COLOUR_TYPES = {3: 2, 4: 6}  # by the number of channels


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Insert a chunk behind the header."""
    return data[:33] + chunk(kind, body) + data[33:]


def png(width: int, height: int, rows: bytes, *, depth: int = 8, channels: int = 3) -> bytes:
    """A file that states a size, whatever rows it holds."""
    header = struct.pack(">IIBBBBB", width, height, depth, COLOUR_TYPES[channels], 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A file of values [H, W, C]."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, rows, depth=16, channels=channels)
