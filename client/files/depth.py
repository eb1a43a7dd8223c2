"""Photos of more than 8 bits, scaled to 8: sensors of 10 and 12 bits store their values in 16."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from client.errors import PhotoError
from client.text import quoted

# The range of the largest value, by depth: near-black if it is not scaled.
_DEPTHS: Final = ((512, 1023), (1024, 4095))
_DEEP: Final = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def scaled_colour(image: Image.Image, data: bytes) -> Image.Image | None:
    """Return a 16-bit colour PNG as 8 bits of what its values use; None for any other, which needs no scaling.

    Pillow keeps the upper bytes alone.

    Args:
        image: the photo, decoded.
        data: its file.
    """
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA"):
        return None
    upper = np.asarray(image)
    if upper[..., :3].max() > _DEPTHS[-1][1] >> 8:
        return None
    with Image.open(io.BytesIO(data), formats=("PNG",)) as other:
        tile = other.tile[0]
        if tile.args not in _DEEP:
            return None
        # The raw mode of the other byte order takes the other byte of each pair.
        other.tile = [tile._replace(args=_DEEP[tile.args])]
        values = upper.astype(np.uint16) * 256 + np.asarray(other)
    largest = int(values[..., :3].max())
    full = next((top for low, top in _DEPTHS if low <= largest <= top), None)
    if full is None:
        return None
    # An opaque alpha may have all 16 bits.
    found = Image.fromarray(np.minimum(np.rint(values * np.float32(255 / full)), 255).astype(np.uint8))
    found.info, found.format = dict(image.info), image.format
    return found


def scaled_grey(image: Image.Image, name: str) -> Image.Image:
    """Scale deep greys to 8 bits; where the mode leaves the range open, the least usual one that holds the maximum."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise PhotoError(f"{quoted(name)} has grey values that are negative or not finite")
    if image.mode.startswith("I;16"):
        full = next((float(top) for low, top in _DEPTHS if low <= values.max() <= top), 65535.0)
    else:
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        full = next((top for top in ranges if values.max() <= top), float(values.max()))
    return Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8))
