"""The square of a face photo that FFHQ and CelebA-HQ would show (Karras et al., arXiv 1710.10196, appendix C).

Their landmarks are means over 68 points; the five of YuNet have the eyes and the corners of the mouth, which is all
that the square is made of.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from judges.faces import Face, Floats, Image8


def square_of(face: Face) -> tuple[Floats, Floats]:
    """The square around a face.

    Returns:
        The middle, float [2], x and y in pixels; and the way along the square's upper side, float [2], of its length.
    """
    left, right = face.landmarks[0], face.landmarks[1]
    eyes, mouth = (left + right) / 2, (face.landmarks[3] + face.landmarks[4]) / 2
    across, down = right - left, mouth - eyes
    # Half of the eyes' line, and half of the line from the eyes to the mouth, turned onto it.
    along = across + np.array([down[1], -down[0]], np.float32)
    along /= np.hypot(*along)
    side = max(4.0 * np.hypot(*across), 3.6 * np.hypot(*down))
    return eyes + 0.1 * down, (along * side).astype(np.float32)


def aligned_square(image: Image8, face: Face, *, size: int) -> Image8:
    """A face as the generator's training set shows faces, reflected where the square reaches outside the photo.

    Args:
        image: uint8 [H, W, 3], RGB.
        face: in it.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    middle, along = square_of(face)
    down = np.array([-along[1], along[0]], np.float32)
    corners = np.array([middle + x * along + y * down for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
    low, high = np.floor(corners.min(axis=0)).astype(int) - 2, np.ceil(corners.max(axis=0)).astype(int) + 2
    height, width = image.shape[:2]
    first, last = low.clip(0), np.minimum(high, [width, height])
    part = image[first[1] : last[1], first[0] : last[0]]
    before, after = first - low, high - last
    part = np.pad(part, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="reflect")
    # Pillow's affine transform does not filter when it shrinks: shrink by a whole factor first.
    shrink = max(1, int(np.hypot(*along) / size))
    x, y = along / size / shrink, down / size / shrink
    corner = (middle - low - along / 2 - down / 2) / shrink
    matrix = (float(x[0]), float(y[0]), float(corner[0]), float(x[1]), float(y[1]), float(corner[1]))
    picture = Image.fromarray(part).reduce(shrink)
    return np.asarray(picture.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC))
