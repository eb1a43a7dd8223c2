"""Cuts a frame out of a photo: without aliasing where it shrinks, and reflected where the photo ends."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from client.frames.frame import Frame

# Values of FFHQ's script, as shares of the frame's side: the least padding, the blur, and the border around the frame.
PADDING: Final = 0.3
BLUR: Final = 0.02
BORDER: Final = 0.1


def cut(image: Image.Image, frame: Frame, side: int) -> NDArray[np.uint8]:
    """Return what a frame shows of a photo.

    A frame that reaches outside the photo shows its reflection there, blurred and faded into the median colour as in
    FFHQ's published script; the blur begins a tenth of the frame's side before the photo's edge.

    Args:
        image: an RGB image.
        frame: whose middle is in the photo, or close to it.
        side: side of the result in pixels.

    Returns:
        uint8 RGB [side, side, 3].
    """
    whole = frame.within(image.size)
    if whole and frame.dy == 0 and frame.dx > 0:
        first, last = (frame.corners[corner].clip(0, image.size).tolist() for corner in (0, 2))
        return np.array(image.resize((side, side), Image.Resampling.LANCZOS, box=(*first, *last)))
    # Pillow's affine transform does not filter when it shrinks: shrink first, then rotate at the scale of the result.
    scale = min(1.0, side / frame.side)
    corners = frame.corners
    border = max(BORDER * frame.side, 4 / scale)
    low = np.floor(corners.min(axis=0) - border).clip(0, np.subtract(image.size, 1)).astype(int)
    high = np.ceil(corners.max(axis=0) + border).clip(low + 1, image.size).astype(int)
    size = np.rint((high - low) * scale).clip(1).astype(int)
    local = image.resize(tuple(size.tolist()), Image.Resampling.LANCZOS, box=(*low.tolist(), *high.tolist()))
    scales = size / (high - low)
    start = np.zeros(2, int)
    if not whole:
        before, after = (low - corners.min(axis=0)) * scales, (corners.max(axis=0) - high) * scales
        local, start = _padded(local, before, after, frame.side * scale)
    inverse = frame.inverse
    matrix = inverse[:, :2] * scales[:, None] / side
    shift = (inverse[:, 2] - low) * scales + start
    data = (*matrix[0], shift[0], *matrix[1], shift[1])
    return np.array(local.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))


def _padded(
    image: Image.Image, before: NDArray[np.float64], after: NDArray[np.float64], side: float
) -> tuple[Image.Image, NDArray[np.int_]]:
    """Reflect an image on all sides, blurred and faded, as FFHQ's script does where a frame reaches outside.

    Args:
        image: an RGB image.
        before: float [2], how far the frame reaches over the left and the upper edge, in pixels.
        after: the same of the right and the lower edge.
        side: side of the frame in pixels.

    Returns:
        The padded image, and where the image's upper left corner is in it, int [2].
    """
    least = max(1, round(PADDING * side))
    first, last = (np.maximum(np.ceil(reach + BORDER * side), least).astype(int) for reach in (before, after))
    padded = np.pad(np.asarray(image), ((first[1], last[1]), (first[0], last[0]), (0, 0)), mode="reflect")
    height, width = padded.shape[:2]
    # 1 at the end of the padding, 0 at the image's edge, below 0 in the image.
    mask = np.maximum(_depth(height, first[1], last[1])[:, None], _depth(width, first[0], last[0]))[..., None]
    blurred = Image.fromarray(padded).filter(ImageFilter.GaussianBlur(BLUR * side))
    found = padded.astype(np.float32)
    found += (np.asarray(blurred, np.float32) - found) * (3 * mask + 1).clip(0, 1)
    found += (np.median(found, axis=(0, 1)) - found) * mask.clip(0, 1)
    return Image.fromarray(np.rint(found).clip(0, 255).astype(np.uint8)), first


def _depth(count: int, before: int, after: int) -> NDArray[np.float32]:
    """How deep in the padding each pixel of an axis is: float32 [count]."""
    place = np.arange(count, dtype=np.float32)
    return np.maximum(1 - place / before, 1 - (count - 1 - place) / after)
