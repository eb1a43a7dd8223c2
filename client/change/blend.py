"""The change between two pictures of the generator, laid over the photo's square.

All three pictures are taken apart into the bands of a Laplacian pyramid (Burt and Adelson, 1983). In a band the photo
gets the render's change, but never beyond both the photo and the edited render: what exceeds both is a feature of the
plain render that lies beside the photo's. Where most of a band changes, the photo's part of it belongs to what was
there before, and the edited render takes over. The coarsest band is only added to, so the photo's light stays; its
colour goes no further than the edited render's. A photo in black and white stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from client.change.filters import Floats, blurred, grey, resized, step, warped
from client.change.flow import registered
from client.frames.frame import Frame, Points

_COARSEST = 32  # pixels: the pyramid's last picture is not larger
_NOISE = 6.0  # levels of 255: flat parts have no features that could change
_WINDOW = 2.0  # pixels of a band: the Gaussian over which its strength is taken
_TAKEN = (0.4, 0.75)  # share of a band's strength that changes: from where, and until all is taken over
_BEYOND = 3.0  # levels a band may exceed both pictures by
_SEEN = (1.0, 3.0)  # levels: changes below the first are left out, above the second kept
_SEEN_OUTSIDE = (6.0, 16.0)  # the same outside a face and its hair
_COLOUR = (2.0, 6.0)  # levels of mean chroma: a photo with less than the first is black and white
_FEATHER = 0.12  # of the side
_HEAD = (0.4, 0.48)  # of the side: half of a head's width and height
_NEAR = (1.0, 1.3)  # half sides of an aligned face's square: from where, and until changes are gone
_BETWEEN = 0.3  # heads: half of the width over which one face's changes give way to another's


@dataclass(frozen=True, eq=False)
class Change:
    """What to do to a photo's square.

    Attributes:
        delta: float32 [S, S, 3], to add, -255 to 255; 0 at the square's border.
        over: float32 [S, S], 0 to 1, how far the render takes over detail that is finer than a pixel of the square.
    """

    delta: Floats
    over: Floats


class Blend:
    """A photo's square and its plain render, to which changes are carried over.

    Args:
        photo: float32 [S, S, 3], 0 to 255.
        plain: float32 [S, S, 3].
        mask: float32 [S, S], as ``feather`` makes it.
        outside: float32 [S, S], 1 where only clear changes are kept.
        points: landmarks of the photo and of the plain render, float [N, 2] each in the unit square.
    """

    def __init__(
        self, photo: Floats, plain: Floats, mask: Floats, outside: Floats, points: tuple[Points, Points] | None = None
    ) -> None:
        assert photo.shape == plain.shape == (len(photo), len(photo), 3)
        self._side, self._mask, self._outside = len(photo), mask, outside
        self._flow = resized(registered(photo, plain, points), (len(photo), len(photo))) * np.float32(len(photo))
        self._photo, self._light = _pyramid(photo)
        self._plain, self._coarsest = _pyramid(warped(plain, self._flow))
        head = (outside < 1) | (outside == 1).all()
        self._colour = step(np.abs(_chroma(photo)).mean(axis=2)[head].mean(), *_COLOUR)

    def __call__(self, edited: Floats) -> Change:
        """Return the change to the photo's square.

        Args:
            edited: float32 [S, S, 3], the edited render.
        """
        assert edited.shape == (self._side, self._side, 3)
        bands, coarsest = _pyramid(warped(edited, self._flow))
        delta = _coloured(self._light, coarsest - self._coarsest, coarsest)
        over = np.zeros(delta.shape[:2], np.float32)
        for photo, plain, now in zip(reversed(self._photo), reversed(self._plain), reversed(bands), strict=True):
            size = (photo.shape[1], photo.shape[0])
            delta, over = resized(delta, size), resized(over, size, Image.Resampling.BILINEAR)
            over = np.maximum(over, _taken(grey(plain), grey(now)))
            band = photo + (now - plain)
            band = band.clip(np.minimum(photo, now) - _BEYOND, np.maximum(photo, now) + _BEYOND)
            delta += band + over[..., None] * (now - band) - photo
        luma = grey(delta)[..., None]
        delta = luma + self._colour * (delta - luma)
        strength = np.sqrt(blurred(np.square(grey(delta)), 0.01 * self._side))
        low, high = ((1 - self._outside) * a + self._outside * b for a, b in zip(_SEEN, _SEEN_OUTSIDE, strict=True))
        seen = step((strength - low) / (high - low), 0, 1) * self._mask
        return Change(delta * seen[..., None], over * seen)


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


def outside(frame: Frame, side: int, transform: Floats | None = None) -> Floats:
    """Return 1 outside a head, as far as it is known where that is, and 0 inside.

    Args:
        frame: the photo's frame; one that is cut to a face says where its head is.
        side: side of the result in pixels.
        transform: float32 [2, 3], from places in the frame to those in the aligned face, both from -1 to 1, or None.

    Returns:
        float32 [side, side].
    """
    if transform is None:
        if frame.kind not in ("aligned", "upright"):
            return np.zeros((side, side), np.float32)
        transform = np.eye(2, 3, dtype=np.float32)
    columns, rows = _aligned(transform, side)
    return step(_heads(0.5 * columns + 0.5, 0.5 * rows + 0.5), 0.85, 1.25)


def near(transform: Floats | None, side: int) -> Floats:
    """Return 1 where an aligned face's square would be, and 0 farther away, where ties and walls are.

    Args:
        transform: as for :func:`outside`; without one it is 1 everywhere.
        side: side of the result in pixels.

    Returns:
        float32 [side, side].
    """
    if transform is None:
        return np.ones((side, side), np.float32)
    columns, rows = _aligned(transform, side)
    return 1 - step(np.maximum(np.abs(columns), np.abs(rows)), *_NEAR)


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


def _aligned(transform: Floats, side: int) -> tuple[Floats, Floats]:
    """Where places of a square lie in the aligned face, from -1 to 1: columns and rows, float32 [side, side] each."""
    places = 2 * _places(side) - 1
    columns, rows = (row[0] * places[None] + row[1] * places[:, None] + row[2] for row in transform.astype(np.float32))
    return columns, rows


def _places(side: int) -> Floats:
    """The middles of pixels along a side of the unit square."""
    found: Floats = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return found


def _heads(columns: Floats, rows: Floats) -> Floats:
    """How far places of the unit square are from the middle of its head: 1 at the head's outline."""
    found: Floats = np.sqrt(np.square((columns - 0.5) / _HEAD[0]) + np.square((rows - 0.5) / _HEAD[1]))
    return found


def _pyramid(image: Floats) -> tuple[list[Floats], Floats]:
    """Return the bands, finest first, float32 [h, w, 3] each, and the coarsest picture."""
    bands = []
    while min(image.shape[:2]) > _COARSEST:
        height, width = image.shape[:2]
        small = resized(image, (-(-width // 2), -(-height // 2)))
        bands.append(image - resized(small, (width, height)))
        image = small
    return bands, image


def _coloured(photo: Floats, change: Floats, edited: Floats) -> Floats:
    """A change whose colour goes no further than the edited render's: teeth that the photo shows already stay white.

    Args:
        photo: float32 [h, w, 3], as ``change`` and ``edited``.
        change: what to add to the photo.
        edited: the edited render.

    Returns:
        float32 [h, w, 3]; of the same luma as ``change``.
    """
    chroma, wanted, most = (_chroma(x) for x in (photo, photo + change, edited))
    found: Floats = change + wanted.clip(np.minimum(chroma, most), np.maximum(chroma, most)) - wanted
    return found + (grey(change) - grey(found))[..., None]


def _chroma(image: Floats) -> Floats:
    """What an RGB image is apart from its luma: float32 [h, w, 3]."""
    return image - grey(image)[..., None]


def _taken(plain: Floats, edited: Floats) -> Floats:
    """Return how far a band is another one, 0 to 1: float32 [h, w] of bands of luma."""
    before, after, change = (np.sqrt(blurred(np.square(x), _WINDOW)) for x in (plain, edited, edited - plain))
    share: Floats = (change / (np.maximum(before, after) + _NOISE)).astype(np.float32)
    return step(share, *_TAKEN)
