"""The change between two pictures of the generator, laid over the photo's square.

As the head moves and turns from one to the other, so do the photo's own pixels, and the plain render's with them. Then
all three pictures are taken apart into the bands of a Laplacian pyramid (Burt and Adelson, 1983). In a band the photo
gets the render's change, but never beyond both the photo and the edited render: what exceeds both is a feature of the
plain render that lies beside the photo's. Where most of a band changes, the photo's part of it belongs to what was
there before, and the edited render takes over. The coarsest band is only added to, so the photo's light stays; its
colour goes no further than the edited render's. A photo in black and white stays so. Nothing is added where the plain
render is full of detail that the photo does not have: the generator cannot draw what is there, as many glasses. Nor is
it where a head that turns uncovers an ear or a wall: that of the render is not that of the photo. Some directions leave
to eyes, brows and nose, by which a person is known, only a share of the change. They change a face: no head turns, and
hair's ends and the wall stay.

Where it is known by how much a head turns, that is all: its pixels turn, and nothing is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from client.change import places
from client.change.filters import Floats, blurred, grey, resized, step, warped
from client.change.flow import moved, registered
from client.change.turn import turned
from client.change.yaw import turning
from client.frames.frame import Points
from client.frames.pose import Pose

_TURNED = 128  # pixels: side of the flow by which a head turns
_COARSEST = 32  # pixels: the pyramid's last picture is not larger
_NOISE = 6.0  # levels of 255: flat parts have no features that could change
_WINDOW = 2.0  # pixels of a band: the Gaussian over which its strength is taken
_TAKEN = (0.4, 0.75)  # share of a band's strength that changes: from where, and until all is taken over
_BEYOND = 3.0  # levels a band may exceed both pictures by
_SEEN = (1.0, 3.0)  # levels: changes below the first are left out, above the second kept
_SEEN_OUTSIDE = (6.0, 16.0)  # the same outside a face and its hair
_OUTSIDE = (0.85, 1.25)  # heads from its middle: from where this begins, and where it holds
_WALL = (0.65, 0.92)  # heads: where a change that leaves features ends, before hair's ends and a wall
_AROUND_HEAD = 0.02  # of the side: the Gaussian over which motion is felt
_MOVED = (0.005, 0.02)  # of the side: motion from where changes outside the head are less, and until there are none
_OUTLINE = (0.6, 0.9)  # heads: where a turned head's pixels only turn, from where and wholly
_SPOT = 0.02  # of the side: the Gaussian over which the difference that a turn leaves is taken
_ANOTHER = (12.0, 25.0)  # levels of it: from where, and wholly, another thing is shown
_MIDDLE = (0.2, 0.4)  # heads: nearer, it is a nose or a gaze
_AROUND_SPOT = 0.015  # of the side: the Gaussian over which such a place is felt
_SPOTS = (0.1, 0.6)  # share of such places: from where changes are less, and until there are none
_BESIDE = (0.8, 1.2)  # heads: up to where, beside a turn, pixels follow the pictures
_FACE = 0.55  # heads from its middle: eyes, nose and mouth are nearer
_COLOUR = (2.0, 6.0)  # levels of mean chroma: a photo with less than the first is black and white
_DETAIL = (96, 300)  # sides of the bands, in pixels, in which made-up detail is looked for
_FAINT = 2.0  # levels that count for nothing there
_NEXT = 0.012  # of the side: the Gaussian over which detail is compared
_INVENTED = (1.7, 3.0)  # the render's detail over the photo's: from where it may be made up, and where it is
_AROUND = 0.05  # of the side: the Gaussian over which a place with made-up detail is felt
_DOUBT = (0.02, 0.08)  # share of made-up detail: from where changes are less, and until there are none


@dataclass(frozen=True, eq=False)
class Change:
    """What to do to a photo's square.

    Attributes:
        delta: float32 [S, S, 3], to add, -255 to 255; 0 at the square's border.
        seen: float32 [S, S], 0 to 1, how far anything changes.
        over: float32 [S, S], 0 to ``seen``, how far the render takes over detail that is finer than a pixel.
        motion: float32 [S, S, 2], where the photo's pixels come from: x and y, in pixels of the square.
    """

    delta: Floats
    seen: Floats
    over: Floats
    motion: Floats


class Blend:
    """A photo's square and its plain render, to which changes are carried over.

    Args:
        photo: float32 [S, S, 3], 0 to 255.
        plain: float32 [S, S, 3].
        mask: float32 [S, S], 0 to 1, how much of a change is kept. Heads that turn by a known yaw keep to the square
            by themselves.
        own: float32 [S, S], 0 to 1, how far each place belongs to this face, and not to others.
        pose: how the face lies in the square, or None.
        points: landmarks of the photo and of the plain render, float [N, 2] each in the unit square.
        whole: where the square reaches outside the photo, from places in it to those in the photo, both from 0 to 1,
            float32 [2, 3].
    """

    def __init__(
        self,
        photo: Floats,
        plain: Floats,
        mask: Floats,
        *,
        own: Floats,
        pose: Pose | None = None,
        points: tuple[Points, Points] | None = None,
        whole: Floats | None = None,
    ) -> None:
        assert photo.shape == plain.shape == (len(photo), len(photo), 3)
        self._side, self._mask, self._own, self._pose = len(photo), mask * own, own, pose
        self._heads = np.zeros_like(mask) if pose is None else places.heads(pose.transform, self._side)
        self._outside = step(self._heads, *_OUTSIDE)
        self._photo, self._render, self._points, self._whole = photo, plain, points, whole
        self._head = (self._outside < 1) | (self._outside == 1).all()
        self._colour = step(np.abs(_chroma(photo)).mean(axis=2)[self._head].mean(), *_COLOUR)

    @property
    def kept(self) -> float:
        """The share of the face, 0 to 1, that stays as it is because the generator cannot draw what is there."""
        face = self._heads < _FACE
        return float(1 - self._drawn[face].mean()) if face.any() else 0.0

    # Heads that turn by a known yaw need none of the next four.
    @cached_property
    def _flow(self) -> Floats:
        """Where the photo's pixels are in the renders, in pixels, float32 [S, S, 2]."""
        return self._pixels(registered(self._photo, self._render, self._points))

    @cached_property
    def _plain(self) -> Floats:
        """The plain render where the photo shows it, float32 [S, S, 3]."""
        return warped(self._render, self._flow)

    @cached_property
    def _drawn(self) -> Floats:
        """How far the generator drew what the photo shows, float32 [S, S], 0 to 1."""
        return _drawn(self._photo, self._plain, self._head.astype(np.float32))

    @cached_property
    def _held(self) -> Floats:
        """How far each place gets only the features' share of a change, float32 [S, S]; 0 where it is not known."""
        return np.zeros_like(self._mask) if self._pose is None else places.features(self._pose.transform, self._side)

    def __call__(self, edited: Floats, *, turn: float = 0.0, features: float = 1.0) -> Change:
        """Return the change to the photo's square.

        Args:
            edited: float32 [S, S, 3], the edited render.
            turn: the yaw by which the head turns; 0 if that is not known.
            features: share of the change that eyes, brows and nose get, 0 to 1. Below 1, what lies around the head gets
                none, and no turn is looked for.
        """
        assert edited.shape == (self._side, self._side, 3)
        if turn and self._pose is not None:
            return self._turned(self._pose, turn)
        given = 1 - np.float32(1 - features) * self._held
        if features < 1 and self._pose is not None:
            given *= 1 - step(self._heads, *_WALL)
        edited = warped(edited, self._flow)
        flow, share = self._motion(edited, turns=features == 1)
        motion = self._pixels(flow) * (self._mask * given)[..., None]
        photo, plain = warped(self._photo, motion), warped(self._plain, motion)
        delta, over = _changed(photo, plain, edited)
        added = given * self._drawn * self._covered(flow)
        if share:
            added *= self._same(edited - plain, share)
        delta = delta * added[..., None] + photo - self._photo
        luma = grey(delta)[..., None]
        delta = luma + self._colour * (delta - luma)
        strength = np.sqrt(blurred(np.square(grey(delta)), 0.01 * self._side))
        low, high = ((1 - self._outside) * a + self._outside * b for a, b in zip(_SEEN, _SEEN_OUTSIDE, strict=True))
        seen = step((strength - low) / (high - low), 0, 1) * self._mask
        return Change(delta * seen[..., None], seen, over * added * seen, motion)

    def _turned(self, pose: Pose, turn: float) -> Change:
        """The change where all that happens is that the head turns."""
        motion = self._pixels(turning(pose, turn, _TURNED, self._whole)) * self._own[..., None]
        seen: Floats = np.asarray(motion.any(axis=2), np.float32)
        delta: Floats = warped(self._photo, motion) - self._photo
        return Change(delta, seen, np.zeros_like(seen), motion)

    def _motion(self, edited: Floats, *, turns: bool) -> tuple[Floats, float]:
        """Where pixels come from, in shares of the side, float32 [n, n, 2]; and how far the head turned."""
        transform = None if self._pose is None or not turns else self._pose.transform
        turn = turned(edited, self._plain, transform, self._drawn)
        rest = moved(edited, warped(self._plain, self._pixels(turn.flow)) if turn.share else self._plain)
        size = rest.shape[:2]
        rest *= resized(self._drawn * (1 - turn.share * step(self._heads, *_BESIDE)), size)[..., None]
        return (rest + warped(turn.flow, rest * len(rest)) if turn.share else rest), turn.share

    def _covered(self, flow: Floats) -> Floats:
        """1 but outside a head that moves, float32 [S, S]: what it uncovers is in the render another person's."""
        far: Floats = np.hypot(flow[..., 0], flow[..., 1])
        gone = step(blurred(far, _AROUND_HEAD * len(far)), *_MOVED)
        return 1 - self._outside * resized(gone, (self._side, self._side), Image.Resampling.BILINEAR)

    def _same(self, difference: Floats, share: float) -> Floats:
        """1 where a turned head shows what it showed, float32 [S, S]: in its middle, and where the render agrees.

        Args:
            difference: float32 [S, S, 3], the edited render less the plain one that has turned.
            share: how far it turned, 0 to 1.
        """
        spots = step(np.abs(blurred(difference, _SPOT * self._side)).max(axis=2), *_ANOTHER)
        spots = blurred(spots, _AROUND_SPOT * self._side) * step(self._heads, *_MIDDLE)
        return (1 - share * step(self._heads, *_OUTLINE)) * (1 - share * step(spots, *_SPOTS))

    def _pixels(self, flow: Floats) -> Floats:
        """A flow in shares of the side, float32 [n, n, 2], as one in pixels of the square: float32 [S, S, 2]."""
        return resized(flow, (self._side, self._side)) * np.float32(self._side)


def _changed(photo: Floats, plain: Floats, edited: Floats) -> tuple[Floats, Floats]:
    """The change to a photo: ``delta`` and ``over``, as in :class:`Change`.

    Args:
        photo: float32 [S, S, 3], moved as the head moves.
        plain: float32 [S, S, 3], the plain render, moved as well.
        edited: float32 [S, S, 3], the edited render.
    """
    (mine, light), (before, dark), (after, coarsest) = (_pyramid(image) for image in (photo, plain, edited))
    delta = _coloured(light, coarsest - dark, coarsest)
    over = np.zeros(delta.shape[:2], np.float32)
    for own, was, now in zip(reversed(mine), reversed(before), reversed(after), strict=True):
        size = (own.shape[1], own.shape[0])
        delta, over = resized(delta, size), resized(over, size, Image.Resampling.BILINEAR)
        over = np.maximum(over, _taken(grey(was), grey(now)))
        band = own + (now - was)
        band = band.clip(np.minimum(own, now) - _BEYOND, np.maximum(own, now) + _BEYOND)
        delta += band + over[..., None] * (now - band) - own
    return delta, over


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


def _drawn(photo: Floats, plain: Floats, head: Floats) -> Floats:
    """Return how far the generator drew what the photo shows: 0 around detail that it made up.

    Args:
        photo: float32 [S, S, 3].
        plain: float32 [S, S, 3], the plain render.
        head: float32 [S, S], 1 inside the head: that all of it is sharper than the photo's makes nothing up.

    Returns:
        float32 [S, S], 0 to 1.
    """
    small = (_DETAIL[0], _DETAIL[0])
    invented = np.zeros(small, np.float32)
    for band, made in zip(_pyramid(photo)[0], _pyramid(plain)[0], strict=True):
        side = len(band)
        if _DETAIL[0] <= side <= _DETAIL[1]:
            ours, drawn, inside = np.square(grey(band)), np.square(grey(made)), resized(head, (side, side))
            sharper = max(1.0, float(np.sqrt((drawn * inside).mean() / ((ours * inside).mean() + 1))))
            ours, drawn = (blurred(power, _NEXT * side) + _FAINT**2 for power in (ours, drawn))
            times: Floats = np.sqrt(drawn / ours).astype(np.float32)
            invented = np.maximum(invented, resized(step(times / sharper, *_INVENTED), small))
    known = 1 - step(blurred(invented, _AROUND * small[0]), *_DOUBT)
    return resized(known, (len(head), len(head)), Image.Resampling.BILINEAR)


def _taken(plain: Floats, edited: Floats) -> Floats:
    """Return how far a band is another one, 0 to 1: float32 [h, w] of bands of luma."""
    before, after, change = (np.sqrt(blurred(np.square(x), _WINDOW)) for x in (plain, edited, edited - plain))
    share: Floats = (change / (np.maximum(before, after) + _NOISE)).astype(np.float32)
    return step(share, *_TAKEN)
