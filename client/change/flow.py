"""Smooth, dense flows: from the photo to the generator's picture, and from its edited picture to the plain one.

Coarse to fine, the iterative least squares of Lucas and Kanade (IJCAI 1981) over Gaussian windows, on luma normalised
to its surroundings; the light of the two pictures differs, and so do their faces, so the flow is smooth and bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.change.filters import Floats, blurred, grey, multiplied, resized, warped

_SURROUNDINGS = 0.05  # of the side
_FLOOR = 8.0  # levels of 255: flatter surroundings are not magnified
_ROBUST = 0.8  # normalised levels: larger differences are other things
_FURTHEST = 1.5  # pixels: a step is no longer


@dataclass(frozen=True)
class Reach:
    """How a flow is found.

    Attributes:
        levels: sides in pixels, coarse to fine.
        bound: how far pixels may move, as a share of the side.
        window: of the side: the Gaussian over which pixels move together.
        smooth: of the side: the Gaussian that smooths the flow.
        steps: of each level.
        stiff: how strong edges have to be, so that pixels move.
    """

    levels: tuple[int, ...]
    bound: float
    window: float
    smooth: float
    steps: int = 6
    stiff: float = 0.02


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
    return shared([(photo, render)], start, TO_RENDER)


def moved(edited: Floats, plain: Floats) -> Floats:
    """Return where each pixel of the edited render was before, as far as a head has moved as a whole.

    Args:
        edited: float32 [S, S, 3], 0 to 255.
        plain: float32 [S, S, 3].

    Returns:
        float32 [128, 128, 2], x and y in shares of the side: ``plain(p + flow)`` looks like ``edited(p)``.
    """
    first = OF_HEAD.levels[0]
    return shared([(edited, plain)], np.zeros((first, first, 2), np.float32), OF_HEAD)


def shared(pairs: Sequence[tuple[Floats, Floats]], flow: Floats, reach: Reach) -> Floats:
    """Return one flow for pairs of pictures.

    Args:
        pairs: float32 [S, S, 3] each, 0 to 255.
        flow: where to begin, float32 [n, n, 2], x and y in shares of the side.
        reach: how to find it.

    Returns:
        float32 [m, m, 2], m of the last level: ``second(p + flow)`` looks like ``first(p)``.
    """
    for side in reach.levels:
        small = [(normalised(resized(one, (side, side))), normalised(resized(two, (side, side)))) for one, two in pairs]
        flow = resized(flow, (side, side))
        for _ in range(reach.steps):
            flow = bounded(_stepped(flow, small, reach), reach.bound)
    return flow


def _stepped(flow: Floats, pairs: Sequence[tuple[Floats, Floats]], reach: Reach) -> Floats:
    """One step; pictures are float32 [n, n], the flow is in shares of the side."""
    side = len(flow)
    terms: Floats = np.zeros((side, side, 5), np.float32)
    for one, two in pairs:
        now = warped(two, flow * side)
        error = one - now
        gy, gx = np.gradient((now + one) / 2)
        # Where the pictures show different things their difference says nothing about movement.
        weight = 1 / (1 + np.square(error / _ROBUST))
        terms += np.stack([gx * gx, gx * gy, gy * gy, gx * error, gy * error], axis=-1) * weight[..., None]
    mean = blurred(terms / np.float32(len(pairs)), reach.window * side)
    xx, xy, yy, ex, ey = np.moveaxis(mean, -1, 0)
    xx, yy = xx + reach.stiff, yy + reach.stiff
    step = np.stack([yy * ex - xy * ey, xx * ey - xy * ex], axis=-1) / (xx * yy - xy * xy)[..., None]
    return blurred((flow + step.clip(-_FURTHEST, _FURTHEST) / side).astype(np.float32), reach.smooth * side)


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
    weights = (weights / (weights.sum(axis=-1, keepdims=True) + 0.05)).astype(np.float32)
    return bounded(multiplied(weights, (render - photo).astype(np.float32)), TO_RENDER.bound)
