"""Smooth, dense flows: from the photo to the generator's picture, and from its edited picture to the plain one.

Coarse to fine, the iterative least squares of Lucas and Kanade (IJCAI 1981) over Gaussian windows, on luma normalised
to its surroundings; the light of the two pictures differs, and so do their faces, so the flow is smooth and bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.change.filters import Floats, blurred, grey, resized, warped

STEPS = 6
_SURROUNDINGS = 0.05  # of the side
_FLOOR = 8.0  # levels of 255: flatter surroundings are not magnified
_STIFF = 0.02


@dataclass(frozen=True)
class Reach:
    """How a flow is found.

    Attributes:
        levels: sides in pixels, coarse to fine.
        bound: how far pixels may move, as a share of the side.
        window: of the side: the Gaussian over which pixels move together.
        smooth: of the side: the Gaussian that smooths the flow.
    """

    levels: tuple[int, ...]
    bound: float
    window: float
    smooth: float


TO_RENDER: Final = Reach(levels=(64, 128, 256), bound=0.035, window=0.028, smooth=0.02)
# A head, not its lips: where a mouth opens, another picture is shown, and none moves.
OF_HEAD: Final = Reach(levels=(32, 64, 128), bound=0.12, window=0.06, smooth=0.05)


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
    first = TO_RENDER.levels[0]
    start = np.zeros((first, first, 2), np.float32) if points is None else _from_points(*points, first)
    return _found(photo, render, start, TO_RENDER)


def moved(edited: Floats, plain: Floats) -> Floats:
    """Return where each pixel of the edited render was before, as far as a head has moved as a whole.

    Args:
        edited: float32 [S, S, 3], 0 to 255.
        plain: float32 [S, S, 3].

    Returns:
        float32 [128, 128, 2], x and y in shares of the side: ``plain(p + flow)`` looks like ``edited(p)``.
    """
    first = OF_HEAD.levels[0]
    return _found(edited, plain, np.zeros((first, first, 2), np.float32), OF_HEAD)


def _found(photo: Floats, render: Floats, flow: Floats, reach: Reach) -> Floats:
    for side in reach.levels:
        a, b = (normalised(resized(image, (side, side))) for image in (photo, render))
        flow = resized(flow, (side, side))
        for _ in range(STEPS):
            flow = bounded(_stepped(flow, a, b, reach), reach.bound)
    return flow


def _stepped(flow: Floats, photo: Floats, render: Floats, reach: Reach) -> Floats:
    """One step; images are float32 [n, n], the flow is in shares of the side."""
    side = len(photo)
    now = warped(render, flow * side)
    error = photo - now
    gy, gx = np.gradient((now + photo) / 2)
    # Where the pictures show different things their difference says nothing about movement.
    weight = 1 / (1 + np.square(error / 0.8))
    terms = np.stack([gx * gx, gx * gy, gy * gy, gx * error, gy * error], axis=-1) * weight[..., None]
    xx, xy, yy, ex, ey = np.moveaxis(blurred(terms.astype(np.float32), reach.window * side), -1, 0)
    xx, yy = xx + _STIFF, yy + _STIFF
    determinant = xx * yy - xy * xy
    step = np.stack([yy * ex - xy * ey, xx * ey - xy * ex], axis=-1) / determinant[..., None]
    return blurred((flow + step.clip(-1.5, 1.5) / side).astype(np.float32), reach.smooth * side)


def bounded(flow: Floats, bound: float) -> Floats:
    """Return a flow, float32 [n, n, 2], no longer than ``bound`` anywhere."""
    length = np.hypot(flow[..., 0], flow[..., 1])[..., None]
    return flow * np.minimum(1, bound / np.maximum(length, 1e-9))


def normalised(image: Floats) -> Floats:
    """Return luma against its surroundings, float32 [n, n], about -3 to 3, of float32 [n, n, 3], 0 to 255."""
    sigma, luma = _SURROUNDINGS * len(image), grey(image)
    rest = luma - blurred(luma, sigma)
    found: Floats = (rest / (np.sqrt(blurred(np.square(rest), sigma)) + _FLOOR)).astype(np.float32)
    return found


def _from_points(photo: NDArray[np.float64], render: NDArray[np.float64], side: int) -> Floats:
    """Return a flow that carries the photo's points to the render's, and fades away from them."""
    places = (np.arange(side) + 0.5) / side
    grid = np.stack(np.meshgrid(places, places), axis=-1)
    apart = np.square(grid[:, :, None] - photo).sum(axis=-1)
    weights = np.exp(-apart / (2 * 0.08**2))
    found = weights @ (render - photo) / (weights.sum(axis=-1, keepdims=True) + 0.05)
    return bounded(found.astype(np.float32), TO_RENDER.bound)
