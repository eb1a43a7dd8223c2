"""Photos of more than 8 bits, scaled to 8: sensors of 10 and 12 bits store their values in 16."""

from __future__ import annotations

import io
import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.errors import PhotoError
from client.files.strips import strips
from client.text import quoted

# The range of the largest value, by depth: near-black if it is not scaled.
_DEPTHS: Final = ((512, 1023), (1024, 4095))
# The raw mode of the other byte order takes the other byte of each pair. N is this machine's own order.
_ORDERS: Final = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DEEP: Final = {
    f"{mode};16{a}": f"{mode};16{b}" for mode in ("RGB", "RGBA", "RGBX", "RGBa") for a, b in _ORDERS.items()
}


def scaled_colour(image: Image.Image, data: bytes) -> Image.Image | None:
    """Return a 16-bit colour PNG or TIFF as 8 bits of what its values use; None for others, which need no scaling.

    Pillow keeps the upper bytes alone.

    Args:
        image: the photo, decoded.
        data: its file.
    """
    if image.format not in ("PNG", "TIFF") or image.mode not in ("RGB", "RGBA"):
        return None
    if max(int(np.asarray(image.crop(box))[..., :3].max()) for box in strips(image.size)) > _DEPTHS[-1][1] >> 8:
        return None
    with Image.open(io.BytesIO(data), formats=(image.format,)) as other:
        if any(_raw_mode(tile.args) not in _DEEP for tile in other.tile):
            return None
        other.tile = [tile._replace(args=_of_other_order(tile.args)) for tile in other.tile]
        other.load()
        largest = max(int(_joined(image, other, box)[..., :3].max()) for box in strips(image.size))
        full = next((top for low, top in _DEPTHS if low <= largest <= top), None)
        if full is None:
            return None
        found = Image.new(image.mode, image.size)
        for box in strips(image.size):
            # An opaque alpha may have all 16 bits.
            scaled = np.minimum(np.rint(_joined(image, other, box) * np.float32(255 / full)), 255)
            found.paste(Image.fromarray(scaled.astype(np.uint8)), box)
    found.info, found.format = dict(image.info), image.format
    return found


def _raw_mode(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else arguments[0]


def _of_other_order(arguments: Any) -> Any:
    """Return the arguments of a decoder that reads the lower bytes."""
    swapped = _DEEP[_raw_mode(arguments)]
    return swapped if isinstance(arguments, str) else (swapped, *arguments[1:])


def _joined(upper: Image.Image, lower: Image.Image, box: tuple[int, int, int, int]) -> NDArray[np.uint16]:
    """Return a part of an image by the upper and lower bytes of its values: uint16 [h, w, C]."""
    found: NDArray[np.uint16] = np.asarray(upper.crop(box)).astype(np.uint16) * 256 + np.asarray(lower.crop(box))
    return found


def scaled_grey(image: Image.Image, name: str) -> Image.Image:
    """Scale deep greys to 8 bits; where the mode leaves the range open, the least usual one that holds the maximum."""
    largest = 0.0
    for box in strips(image.size):
        values = np.asarray(image.crop(box), np.float64)
        if not np.isfinite(values).all() or values.min() < 0:
            raise PhotoError(f"{quoted(name)} has grey values that are negative or not finite")
        largest = max(largest, float(values.max()))
    if image.mode.startswith("I;16"):
        full = next((float(top) for low, top in _DEPTHS if low <= largest <= top), 65535.0)
    else:
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        full = next((top for top in ranges if largest <= top), largest)
    found = Image.new("L", image.size)
    for box in strips(image.size):
        values = np.asarray(image.crop(box), np.float64)
        found.paste(Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8)), box)
    return found
