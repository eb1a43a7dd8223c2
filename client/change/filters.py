"""Blurs, resizes and warps of float images, in NumPy and Pillow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
_EXPAND_BELOW = 6.0


def blurred(image: Floats, sigma: float) -> Floats:
    """Return a Gaussian blur with reflected borders; wide ones are made on a smaller image.

    Args:
        image: float32 [H, W] or [H, W, C].
        sigma: in pixels; 0 leaves the image.
    """
    if sigma <= 0:
        return image
    if (shrink := int(sigma / _EXPAND_BELOW) + 1) > 1:
        height, width = image.shape[:2]
        size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        small = resized(image, size, Image.Resampling.BOX)
        return resized(blurred(small, sigma * size[0] / width), (width, height), Image.Resampling.BILINEAR)
    radius = math.ceil(3 * sigma)
    taps = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma)).astype(np.float32)
    taps /= taps.sum()
    for axis in (0, 1):
        image = _convolved(image, taps, axis)
    return image


def _convolved(image: Floats, taps: Floats, axis: int) -> Floats:
    radius, count = len(taps) // 2, image.shape[axis]
    padding = [(0, 0)] * image.ndim
    padding[axis] = (radius, radius)
    padded = np.pad(image, padding, mode="symmetric")
    found = np.zeros_like(image)
    for shift, tap in enumerate(taps):
        part = padded[shift : shift + count] if axis == 0 else padded[:, shift : shift + count]
        found += tap * part
    return found


def resized(image: Floats, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BICUBIC) -> Floats:
    """Return a float image at ``size`` (width, height); shrinking filters.

    Args:
        image: float32 [H, W] or [H, W, C].
        size: width and height.
        how: Pillow's filter.
    """
    if image.shape[:2] == size[::-1]:
        return image
    if image.ndim == 2:
        return np.asarray(Image.fromarray(image).resize(size, how))
    channels = (np.ascontiguousarray(image[..., c]) for c in range(image.shape[2]))
    return np.stack([np.asarray(Image.fromarray(channel).resize(size, how)) for channel in channels], axis=-1)


def warped(image: Floats, flow: Floats, corner: tuple[int, int] = (0, 0)) -> Floats:
    """Return ``image(corner + p + flow(p))``, bilinear, with the border's pixels outside.

    Args:
        image: float32 [H, W] or [H, W, C].
        flow: float32 [h, w, 2], x and y in pixels.
        corner: x and y in the image of the flow's first pixel.

    Returns:
        float32 [h, w] or [h, w, C].
    """
    height, width = image.shape[:2]
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    x = (columns + corner[0] + flow[..., 0]).clip(0, width - 1)
    y = (rows + corner[1] + flow[..., 1]).clip(0, height - 1)
    left, top = x.astype(np.int32).clip(0, width - 2), y.astype(np.int32).clip(0, height - 2)
    right, down = x - left, y - top
    if image.ndim == 3:
        right, down = right[..., None], down[..., None]
    flat = image.reshape(height * width, -1) if image.ndim == 3 else image.ravel()
    first = top * width + left
    upper = flat[first] * (1 - right) + flat[first + 1] * right
    lower = flat[first + width] * (1 - right) + flat[first + width + 1] * right
    found: Floats = upper * (1 - down) + lower * down
    return found


def grey(image: Floats) -> Floats:
    """Return the luma of an RGB image: float32 [H, W]."""
    return multiplied(image, np.array([0.299, 0.587, 0.114], np.float32))


def multiplied(vectors: Floats, matrix: Floats) -> Floats:
    """Return ``vectors @ matrix`` of finite numbers."""
    # On some processors OpenBLAS reports invalid values that are none; one that is shows where pixels are rounded.
    with np.errstate(invalid="ignore"):
        found: Floats = vectors @ matrix
    return found


def step(values: Floats, low: float, high: float) -> Floats:
    """Return the smooth step from 0 at ``low`` to 1 at ``high``."""
    t = ((values - low) / (high - low)).clip(0, 1)
    found: Floats = (t * t * (3 - 2 * t)).astype(np.float32)
    return found
