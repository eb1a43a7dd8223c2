"""A head that turns along a direction of which that is not known: how it moves, told by five numbers.

They hold where the plain render and an edited one show different things, as the other ear and other hair, where
:mod:`client.change.flow` has nothing to follow. They are found by Gauss-Newton on robust differences, coarse to fine,
as in Baker and Matthews (IJCV 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from client.change.filters import Floats, multiplied, resized, step, warped
from client.change.flow import bounded, normalised
from client.change.places import aligned, heads
from client.change.yaw import odd, outwards

_LEVELS = (32, 64, 128)  # sides in pixels, coarse to fine
_STEPS = 8
_BOUND = 0.2  # of the side
_ROBUST = 0.8  # normalised levels: larger differences are other things
_STIFF: Final = np.array([2e-5, 2e-5, 2e-4, 2e-4, 2e-5])  # shift across and down, size, roll, yaw
_INSIDE = (0.95, 1.1)  # heads from its middle: up to where pictures are compared
_LEAST = 0.02  # of the square that what counts has to take
_FADES = (1.0, 1.8)  # heads: from its outline to where nothing moves
_TURNED = (0.03, 0.06)  # eye distances of the nose's tip: smiles and years seldom move heads by more than the first


@dataclass(frozen=True, eq=False)
class Turn:
    """How a head turned.

    Attributes:
        share: 0 to 1, how sure it is that it did.
        flow: float32 [128, 128, 2], x and y in shares of the side: ``plain(p + flow)`` is turned like the edited
            render; 0 if ``share`` is.
    """

    share: float
    flow: Floats


def turned(edited: Floats, plain: Floats, transform: Floats | None, drawn: Floats) -> Turn:
    """Return how the head of the plain render turned.

    Args:
        edited: float32 [S, S, 3], 0 to 255.
        plain: float32 [S, S, 3].
        transform: from places in the square to those in the aligned face; None if it is not known where the face lies.
        drawn: float32 [S, S], 0 to 1, how far each place counts.
    """
    still = Turn(0.0, np.zeros((_LEVELS[-1], _LEVELS[-1], 2), np.float32))
    if transform is None:
        return still
    weights = drawn * (1 - step(heads(transform, len(drawn)), *_INSIDE))
    if weights.mean() < _LEAST:
        return still
    numbers = np.zeros(len(_STIFF), np.float32)
    for side in _LEVELS:
        modes = _modes(transform, side)
        counts = resized(weights, (side, side))
        pictures = [normalised(resized(image, (side, side))) for image in (edited, plain)]
        numbers = _fitted(numbers, modes, counts / counts.sum(), pictures[0], pictures[1])
    share = float(step(np.abs(numbers[4]), *_TURNED))
    return Turn(share, bounded(share * multiplied(modes, numbers), _BOUND)) if share else still


def _fitted(numbers: Floats, modes: Floats, weights: Floats, edited: Floats, plain: Floats) -> Floats:
    """Return better numbers at one level.

    Args:
        numbers: float32 [5], those so far.
        modes: float32 [n, n, 2, 5].
        weights: float32 [n, n], how much a place counts; the sum is 1.
        edited: float32 [n, n], normalised.
        plain: float32 [n, n].
    """
    side = len(edited)

    def difference(numbers: Floats) -> tuple[Floats, float]:
        error = (edited - warped(plain, multiplied(modes, numbers) * side)) / _ROBUST
        return error, float((weights * np.log1p(np.square(error))).sum())

    # What a coarse level made of noise is dropped.
    numbers = min(numbers, np.zeros_like(numbers), key=lambda tried: difference(tried)[1])
    error, least = difference(numbers)
    for _ in range(_STEPS):
        y, x = np.gradient(edited - error * (_ROBUST / 2))
        slopes = (x[..., None] * modes[:, :, 0] + y[..., None] * modes[:, :, 1]) * (side / _ROBUST)
        sure = weights / (1 + np.square(error))
        matrix = np.einsum("hwi,hwj,hw->ij", slopes, slopes, sure) + np.diag(_STIFF * side**2)
        change = np.linalg.solve(matrix, np.einsum("hwi,hw->i", slopes, sure * error)).astype(np.float32)
        for scale in (1.0, 0.5, 0.25, 0.125):
            nearer = (numbers + scale * change).astype(np.float32)
            now, reached = difference(nearer)
            if reached < least:
                break
        else:
            break
        numbers, error, least = nearer, now, reached
    return numbers


def _modes(transform: Floats, side: int) -> Floats:
    """The flow of each number, in shares of the square's side: float32 [side, side, 2, 5]."""
    columns, rows = (0.5 * places + 0.5 for places in aligned(transform, side))
    away = heads(transform, side)
    still = np.zeros_like(away)
    one = 1 - step(away, *_FADES)
    x, y = (columns - 0.5) * one, (rows - 0.5) * one
    pairs = [(one, still), (still, one), (x, y), (-y, x)]
    flows = np.stack([np.stack(pair, axis=-1) for pair in pairs], axis=-1)
    to_square = np.linalg.inv(transform[:, :2].astype(np.float64)).astype(np.float32)
    found = np.einsum("ij,hwjn->hwin", to_square, flows)
    return np.concatenate([found, outwards(odd(), transform, side)[..., None]], axis=-1).astype(np.float32)
