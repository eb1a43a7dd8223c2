"""Where a frame's face lies, and how far its changes reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from client.change.filters import Floats, step
from client.frames.frame import Frame
from client.frames.pose import Pose

_FEATHER = 0.12  # of the side
_HEAD = (0.4, 0.48)  # of the side: half of a head's width and height
_NEAR = (1.0, 1.3)  # half sides of an aligned face's square: from where, and until changes are gone
# In the aligned face, from -1 to 1: half of the width, top and bottom of eyes and brows, nose, and forehead.
_EYES = (0.5, -0.36, 0.1)
_NOSE = (0.2, -0.2, 0.33)
_FOREHEAD = (0.5, -0.75, -0.36)
_OF_FOREHEAD = 0.7  # how far it counts: less than eyes, since wrinkles show there
_EDGE = 0.12  # of such a place, either way
_BETWEEN = 0.3  # heads: half of the width over which one face's changes give way to another's


def feather(frame: Frame, size: tuple[int, int], side: int) -> Floats:
    """Return how much of a change is kept: 1 inside, 0 at the frame's border except where the photo ends there.

    Args:
        frame: the photo's frame.
        size: width and height of the photo.
        side: side of the result in pixels.

    Returns:
        float32 [side, side].
    """
    places = _places(side)
    low, high = places, 1 - places
    rows = columns = np.minimum(low, high)
    if frame.dy == 0 and frame.dx > 0:
        corners = frame.corners
        ends = [*(corners[0] <= 0), *(corners[2] >= size)]
        left, top, right, bottom = (np.float32(1 if end else 0) for end in ends)
        columns, rows = np.minimum(low + left, high + right), np.minimum(low + top, high + bottom)
    # The outermost pixels are 0, so that interpolation next to the border is, too.
    least = 2.0 / side
    return step(columns, least, least + _FEATHER)[None] * step(rows, least, least + _FEATHER)[:, None]


def posed(frame: Frame, pose: Pose | None = None) -> Pose | None:
    """Return how the face lies in the frame; None if it is not known.

    Args:
        frame: the photo's frame; one that is cut to a face says where its head is.
        pose: the same, if it is known.
    """
    if pose is None and frame.kind in ("aligned", "upright"):
        return Pose(np.eye(2, 3, dtype=np.float32))
    return pose


def heads(transform: Floats, side: int) -> Floats:
    """Return how far each place is from the middle of the head, 1 at its outline: float32 [side, side].

    Args:
        transform: from places in the square to those in the aligned face, float32 [2, 3].
        side: side of the result in pixels.
    """
    columns, rows = aligned(transform, side)
    return _heads(0.5 * columns + 0.5, 0.5 * rows + 0.5)


def near(pose: Pose | None, side: int) -> Floats:
    """Return 1 where an aligned face's square would be, and 0 farther away, where ties and walls are.

    Args:
        pose: how the face lies in the square, or None: 1 everywhere.
        side: side of the result in pixels.

    Returns:
        float32 [side, side].
    """
    if pose is None:
        return np.ones((side, side), np.float32)
    columns, rows = aligned(pose.transform, side)
    return 1 - step(np.maximum(np.abs(columns), np.abs(rows)), *_NEAR)


def features(transform: Floats, side: int) -> Floats:
    """Return how far each place belongs to eyes, brows and nose, and the forehead: float32 [side, side], 0 to 1.

    Args:
        transform: from places in the square to those in the aligned face, float32 [2, 3].
        side: side of the result in pixels.
    """
    columns, rows = aligned(transform, side)
    eyes, nose, forehead = (
        (1 - _beyond(np.abs(columns), wide)) * _beyond(rows, top) * (1 - _beyond(rows, bottom))
        for wide, top, bottom in (_EYES, _NOSE, _FOREHEAD)
    )
    found: Floats = np.maximum(np.maximum(eyes, nose), _OF_FOREHEAD * forehead)
    return found


def share(frame: Frame, others: Sequence[Frame], side: int) -> Floats:
    """Return how far each place belongs to a frame's face, and not to other faces; what two faces get adds up to 1.

    Args:
        frame: the face's frame.
        others: frames of the other faces of the photo.
        side: side of the result in pixels.

    Returns:
        float32 [side, side].
    """
    found = np.ones((side, side), np.float32)
    places = _places(side)
    for other in others:
        if np.hypot(*(frame.middle - other.middle)) > frame.side + other.side:
            continue
        matrix = other.matrix[:, :2] @ frame.inverse[:, :2]
        x, y = other.to_square(frame.to_photo([[0, 0]]))[0]
        columns = (matrix[0, 0] * places[None] + matrix[0, 1] * places[:, None] + x).astype(np.float32)
        rows = (matrix[1, 0] * places[None] + matrix[1, 1] * places[:, None] + y).astype(np.float32)
        nearer = _heads(columns, rows) - _heads(places[None], places[:, None])
        found *= step(nearer, -_BETWEEN, _BETWEEN)
    return found


def aligned(transform: Floats, side: int) -> tuple[Floats, Floats]:
    """Where places of a square lie in the aligned face, from -1 to 1: columns and rows, float32 [side, side] each."""
    places = 2 * _places(side) - 1
    columns, rows = (row[0] * places[None] + row[1] * places[:, None] + row[2] for row in transform.astype(np.float32))
    return columns, rows


def _beyond(places: Floats, edge: float) -> Floats:
    return step(places, edge - _EDGE, edge + _EDGE)


def _places(side: int) -> Floats:
    """The middles of pixels along a side of the unit square."""
    found: Floats = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return found


def _heads(columns: Floats, rows: Floats) -> Floats:
    """As :func:`heads`, for places of the unit square of an aligned face."""
    found: Floats = np.sqrt(np.square((columns - 0.5) / _HEAD[0]) + np.square((rows - 0.5) / _HEAD[1]))
    return found
