"""Registers the generator's picture to the photo: a small, smooth, dense flow.

Coarse to fine, the iterative least squares of Lucas and Kanade (IJCAI 1981) over Gaussian windows, on luma normalised
to its surroundings; the light of the two pictures differs, and so do their faces, so the flow is smooth and bounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.change.filters import Floats, blurred, grey, resized, warped

LEVELS = (64, 128, 256)
STEPS = 6
BOUND = 0.035  # of the square's side
_WINDOW = 0.028  # of the square's side: the Gaussian over which pixels move together
_SMOOTH = 0.02
_SURROUNDINGS = 0.05
_FLOOR = 8.0  # levels of 255: flatter surroundings are not magnified
_STIFF = 0.02


def registered(
    photo: Floats, render: Floats, points: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
) -> Floats:
    """Return where each pixel of the photo's square is in the render.

    Args:
        photo: float32 [S, S, 3], 0 to 255.
        render: float32 [S, S, 3].
        points: landmarks of the photo and of the render, float [N, 2] in the unit square.

    Returns:
        float32 [256, 256, 2], x and y in shares of the side: ``render(p + flow)`` looks like ``photo(p)``.
    """
    flow = np.zeros((LEVELS[0], LEVELS[0], 2), np.float32) if points is None else _from_points(*points, LEVELS[0])
    for side in LEVELS:
        a, b = (_normalised(grey(resized(image, (side, side)))) for image in (photo, render))
        flow = resized(flow, (side, side))
        for _ in range(STEPS):
            flow = _bounded(_moved(flow, a, b))
    return flow


def _moved(flow: Floats, photo: Floats, render: Floats) -> Floats:
    """One step; images are float32 [n, n], the flow is in shares of the side."""
    side = len(photo)
    now = warped(render, flow * side)
    error = photo - now
    gy, gx = np.gradient((now + photo) / 2)
    # Where the pictures show different things their difference says nothing about movement.
    weight = 1 / (1 + np.square(error / 0.8))
    terms = np.stack([gx * gx, gx * gy, gy * gy, gx * error, gy * error], axis=-1) * weight[..., None]
    xx, xy, yy, ex, ey = np.moveaxis(blurred(terms.astype(np.float32), _WINDOW * side), -1, 0)
    xx, yy = xx + _STIFF, yy + _STIFF
    determinant = xx * yy - xy * xy
    step = np.stack([yy * ex - xy * ey, xx * ey - xy * ex], axis=-1) / determinant[..., None]
    return blurred((flow + step.clip(-1.5, 1.5) / side).astype(np.float32), _SMOOTH * side)


def _bounded(flow: Floats) -> Floats:
    length = np.hypot(flow[..., 0], flow[..., 1])[..., None]
    return flow * np.minimum(1, BOUND / np.maximum(length, 1e-9))


def _normalised(image: Floats) -> Floats:
    """Return luma against its surroundings: float32 [n, n], about -3 to 3."""
    sigma = _SURROUNDINGS * len(image)
    rest = image - blurred(image, sigma)
    found: Floats = (rest / (np.sqrt(blurred(np.square(rest), sigma)) + _FLOOR)).astype(np.float32)
    return found


def _from_points(photo: NDArray[np.float64], render: NDArray[np.float64], side: int) -> Floats:
    """Return a flow that carries the photo's points to the render's, and fades away from them."""
    places = (np.arange(side) + 0.5) / side
    grid = np.stack(np.meshgrid(places, places), axis=-1)
    apart = np.square(grid[:, :, None] - photo).sum(axis=-1)
    weights = np.exp(-apart / (2 * 0.08**2))
    found = weights @ (render - photo) / (weights.sum(axis=-1, keepdims=True) + 0.05)
    return _bounded(found.astype(np.float32))
