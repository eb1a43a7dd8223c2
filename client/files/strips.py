"""Large photos in strips of whole rows: what is made of a strip is small, whatever the photo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_PIXELS: Final = 2**18


def strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield the strips of a picture of ``size`` (width, height), from the top: left, top, right, bottom of each."""
    width, height = size
    rows = max(1, _PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)
