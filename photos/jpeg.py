"""JPEG files before Pillow decodes them: the work that they cause, and a missing end marker."""

from __future__ import annotations

from typing import Final

MAX_SCANS: Final = 100
# Decoding takes time in proportion to scans times pixels: 100 megapixels in 30 scans are a minute.
MAX_WORK: Final = 3_000_000_000
START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_SCAN: Final = b"\xff\xda"
_NOISE: Final = b"\x5a\xa5\x3c" * 64


def scans(data: bytes) -> int:
    """Return how often the file begins a scan, thumbnails included: 1 for a baseline file, about 10 for others."""
    return data.count(_SCAN)


def ended(data: bytes) -> tuple[bytes, bytes]:
    """Return the file with an end marker, twice, with different bytes before it.

    The decoder fills pixels that are missing from those bytes. So the pixels of both are the same only where none is.
    """
    return data + _END, data + _NOISE + _END
