"""How a head turns to a side by a known yaw: where the pixels of a photo come from.

``yaw.safetensors`` says how an aligned head moves that faces the camera: to a yaw of y, by ``y odd + y² even``. It is a
mean over samples of the generator (``python -m export directions``). Of it, photos move across alone, as what turns
about an upright axis does, smoothly, and get less narrow: what else samples do costs the likeness. A head that is
turned already goes back to the front, and on from there.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from client.change.filters import Floats, blurred, multiplied, step, warped
from client.change.places import aligned, heads
from client.errors import ClientError
from client.files import tensors
from client.frames.pose import Pose

FILE: Final = Path(__file__).with_name("yaw.safetensors")
SIDE: Final = 64
_MAX_BYTES: Final = 2**20
_MOST: Final = (0.36, 0.5)  # eye distances: how far a head may be turned before, and after
_SMOOTH: Final = 0.04  # of the side: the Gaussian that smooths the motion
_EVEN: Final = 0.8  # of the motion that is even in the yaw
_STEPS: Final = 16  # until the way back to the front is known
_STEP: Final = 0.7  # of each: where the flow is steep, whole ones would go too far
_EDGE: Final = 0.85  # heads from the middle: what lies farther moves as this does
_FADES: Final = (1.0, 1.8)  # heads: from the outline to where nothing moves
_BORDER: Final = 0.6  # of the way to the border ahead: from no farther do pixels come
_SHEARED: Final = 0.15  # of the side: from the borders beside to where pixels move freely


def turning(pose: Pose, turn: float, side: int, whole: Floats | None = None) -> Floats:
    """Return the flow by which a head turns.

    Args:
        pose: where the face lies in the square, and how far it is turned.
        turn: the yaw to add, in eye distances of the nose's tip; above 0 to the right of the image.
        side: side of the result in pixels.
        whole: where the square reaches outside the photo, from places in it to those in the photo, both from 0 to 1,
            float32 [2, 3].

    Returns:
        float32 [side, side, 2], x and y in shares of the square's side: ``photo(p + flow)`` is turned. Nothing comes
        from outside the square or the photo.
    """
    before, after = _MOST
    own = float(np.clip(pose.yaw, -before, before))
    flow = _from_front(float(np.clip(own + turn, -after, after)))
    found, back = flow.copy(), _from_front(own)
    for _ in range(_STEPS):
        found += np.float32(_STEP) * (flow - warped(back, found * SIDE) - found)
    held = _held(outwards(found, pose.transform, side))
    return held if whole is None else _inside(held, whole)


def outwards(flow: Floats, transform: Floats, side: int) -> Floats:
    """Return an aligned head's flow where it lies in a square; what is beyond the outline moves along, then less.

    Args:
        flow: float32 [n, n, 2], in shares of the aligned face's side.
        transform: from places in the square to those in the aligned face, float32 [2, 3].
        side: side of the result in pixels.

    Returns:
        float32 [side, side, 2], in shares of the square's side.
    """
    away, n = heads(transform, side), len(flow)
    inwards = np.minimum(1, _EDGE / np.maximum(away, _EDGE))
    columns, rows = (n * (0.5 + 0.5 * inwards * places) - 0.5 for places in aligned(transform, side))
    across, down = np.meshgrid(np.arange(side), np.arange(side))
    moves = warped(flow, np.stack([columns - across, rows - down], axis=-1).astype(np.float32))
    to_square = np.linalg.inv(transform[:, :2].astype(np.float64)).astype(np.float32)
    found: Floats = multiplied(moves, to_square.T) * (1 - step(away, *_FADES))[..., None]
    return found


def odd() -> Floats:
    """Return how an aligned head moves as it begins to turn: float32 [SIDE, SIDE, 2], shares of its side per yaw."""
    return _file()[0]


def _from_front(yaw: float) -> Floats:
    first, second = _across()
    return np.float32(yaw) * first + np.float32(_EVEN * yaw * yaw) * second


@cache
def _across() -> tuple[Floats, Floats]:
    """What of the file's motion photos make."""
    across = np.array([1, 0], np.float32)
    first, second = (blurred(flow * across, _SMOOTH * SIDE) for flow in _file())
    return first, second


def _held(flow: Floats) -> Floats:
    """A flow that is still at the square's border, and keeps the order of pixels on the way there."""
    places = (np.arange(len(flow), dtype=np.float32) + 0.5) / len(flow)
    near = np.minimum(places, 1 - places)
    limits = np.stack(np.broadcast_arrays(near[None], near[:, None]), axis=-1)
    sheared = step(limits[..., ::-1], 0.5 / len(flow), _SHEARED)
    return sheared * _limited(flow, limits)


def _inside(flow: Floats, whole: Floats) -> Floats:
    """A flow that brings nothing from outside the photo; ``whole`` is as for :func:`turning`."""
    places = (np.arange(len(flow), dtype=np.float32) + 0.5) / len(flow)
    linear, shift = whole[:, :2], whole[:, 2]
    here = multiplied(np.stack(np.meshgrid(places, places), axis=-1), linear.T) + shift
    moves = multiplied(flow, linear.T)
    ahead = np.maximum(np.where(moves > 0, 1 - here, here), 1e-6)
    return multiplied(_limited(moves, ahead), np.linalg.inv(linear).T)


def _limited(flow: Floats, ahead: Floats) -> Floats:
    """A flow, [..., 2], from no farther than ``_BORDER`` of what lies ahead."""
    found: Floats = flow / np.power(1 + np.power(flow / (_BORDER * ahead), 4), 0.25)
    return found


@cache
def _file() -> tuple[Floats, Floats]:
    found, _ = tensors.load(FILE, limit=_MAX_BYTES, error=ClientError)
    first, second = (tensors.require(found, name, what=FILE.name, error=ClientError) for name in ("odd", "even"))
    assert first.shape == second.shape == (SIDE, SIDE, 2)
    return first, second
