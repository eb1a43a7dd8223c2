"""Limits of photos; in a module of their own, so that the help needs no Pillow."""

from __future__ import annotations

from typing import Final

FORMAT_NAMES: Final = "JPEG, PNG, WebP, AVIF, TIFF, BMP or GIF (first frame), and HEIC with the extra `heif`"
MAX_MEGAPIXELS: Final = 100
MAX_BYTES: Final = 512 * 2**20
MIN_SIDE: Final = 16
# Time limit of decoding; 100 megapixels take at most 10 s on an idle machine.
MAX_SECONDS: Final = 60
# Limits of CPU time: for opening any photo, and then for its pixels, colours included.
OPENING_SECONDS: Final = 5
PIXELS_A_SECOND: Final = 1_500_000
# Faces of one photo that are refined at a time: the side-car's own `--batch`.
FACES_AT_A_TIME: Final = 4


def turns(faces: int) -> int:
    """Return how often faces of one photo take turns."""
    return max(1, -(-faces // FACES_AT_A_TIME))


def at_a_time(faces: int) -> int:
    """Return how many faces are refined at a time: as many in each turn."""
    return -(-faces // turns(faces))
