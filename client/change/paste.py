"""Puts an edit into the whole photo: what changes in the frame, tile by tile, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil, floor
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.change.blend import Blend, Change
from client.change.filters import Floats, multiplied, resized, warped
from client.change.places import feather, near, posed, share
from client.files.photo import Photo
from client.frames.cut import cut
from client.frames.frame import Frame, Points
from client.frames.pose import Pose

Image8 = NDArray[np.uint8]
Box = tuple[int, int, int, int]
_SMOOTH: Final = Image.Resampling.BILINEAR  # of fields without detail of their own
_TILE: Final = 512  # side of what is changed at a time, in pixels of the photo
_REACH: Final = 3  # pixels of the square that interpolation reads around a place, and one for rounding
_LEAST_SIDE: Final = 64
_TOLD: Final = 0.25  # of a face: what stays as it is from here on is told


class Paste:
    """A photo, into which edits of one of its frames are put.

    Args:
        photo: the photo; it is not changed.
        frame: its square that was inverted.
        plain: uint8 RGB [S, S, 3], what the generator makes of its code.
        points: landmarks of the photo and of the plain render where they are known, float [N, 2] each in the unit
            square.
        others: frames of other faces that are edited in the same picture: where two touch, each changes its own side.
        pose: how the face lies in the frame; None if it is not known.

    Raises:
        PhotoError: the frame does not show enough of the photo.
    """

    def __init__(
        self,
        photo: Photo,
        frame: Frame,
        plain: Image8,
        points: tuple[Points, Points] | None = None,
        *,
        others: Sequence[Frame] = (),
        pose: Pose | None = None,
    ) -> None:
        assert plain.ndim == 3
        assert plain.shape[0] == plain.shape[1]
        frame.require_photo(photo.size, name=photo.name)
        self.photo, self.frame = photo, frame
        # Finer than the photo would alias, finer than the render is empty.
        self._side = min(len(plain), max(_LEAST_SIDE, round(frame.side)))
        self._square = cut(photo.image, frame, self._side).astype(np.float32)
        mask, own = feather(frame, photo.size, self._side) * near(pose, self._side), share(frame, others, self._side)
        inside = frame.within(photo.size)
        whole = None if inside else (frame.inverse / np.reshape(photo.size, (2, 1))).astype(np.float32)
        self._blend = Blend(
            self._square,
            _shrunk(plain, self._side),
            mask,
            own=own,
            pose=posed(frame, pose),
            points=points,
            whole=whole,
        )

    @property
    def note(self) -> str:
        """What to know of edits that paint, in one sentence; mostly empty."""
        kept = self._blend.kept
        if kept < _TOLD:
            return ""
        return f"{kept:.0%} of the face stays as it is: the generator draws something else there, as for many glasses"

    def __call__(
        self, edited: Image8, *, turn: float = 0.0, features: float = 1.0, onto: Image.Image | None = None
    ) -> Image.Image:
        """Return the whole photo with an edit in it.

        Args:
            edited: uint8 RGB [S, S, 3], the edited render.
            turn: the yaw that the edit adds, as of ``Direction.turned``. Where it is known how the face lies, its own
                pixels turn, and nothing is painted. At 0, a turn is looked for.
            features: share of the change that eyes, brows and nose get, 0 to 1, as of ``Direction``; all where it is
                not known how the face lies.
            onto: instead of a new ``photo.canvas()``, one that is changed in place; so several faces of a photo are
                edited one after the other.

        Returns:
            The picture, RGB, in the colours of the photo and with its ICC profile; pixels outside the frame are those
            of the photo.
        """
        assert edited.ndim == 3
        # First, while the canvas, which may be large, is not there yet.
        change = self._blend(_shrunk(edited, self._side), turn=turn, features=features)
        picture = self.photo.canvas() if onto is None else onto
        corners = self.frame.corners
        low = np.floor(corners.min(axis=0)).clip(0, picture.size).astype(int)
        high = np.ceil(corners.max(axis=0)).clip(0, picture.size).astype(int)
        for top, left in product(range(low[1], high[1], _TILE), range(low[0], high[0], _TILE)):
            box = (left, top, min(left + _TILE, int(high[0])), min(top + _TILE, int(high[1])))
            part = self._part(box)
            if change.seen[part].any():
                picture.paste(Image.fromarray(self._changed(picture.crop(box), change, box)), box)
        return picture

    def _changed(self, tile: Image.Image, change: Change, box: Box) -> Image8:
        """Change a tile of the picture that lies at ``box``; returns uint8 RGB [h, w, 3]."""
        own = self.photo.own
        before = np.asarray(tile) if own is None else own.to_srgb(tile)
        found = before.astype(np.float32) + self._in_photo(change.delta, box)
        if self.frame.side > self._side:
            found += self._detail(change, box)
        changed: Image8 = np.rint(found).clip(0, 255).astype(np.uint8)
        return changed if own is None else own.changed(tile, before, changed)

    def _detail(self, change: Change, box: Box) -> Floats:
        """How detail changes that the photo shows and the square cannot: it moves, or the render takes over."""
        to_photo = (self.frame.inverse[:, :2].T / self._side).astype(np.float32)
        reach = np.r_[multiplied(change.motion[self._part(box)].reshape(-1, 2), to_photo), np.zeros((1, 2))]
        low, high = reach.min(axis=0), reach.max(axis=0)
        left, top, right, bottom = box
        x, y = (max(0, at + floor(by)) for at, by in zip((left, top), low, strict=True))
        ends = (min(at + ceil(by), end) for at, by, end in zip((right, bottom), high, self.photo.size, strict=True))
        around = x, y, *ends
        fine = np.asarray(self.photo.image.crop(around), np.float32) - self._in_photo(self._square, around)
        here = fine[top - y : bottom - y, left - x : right - x]
        moved = here
        if reach.any():
            # Beyond the frame the square has nothing to compare with.
            inside = fine * self._in_photo(np.ones_like(change.seen), around, _SMOOTH)[..., None]
            motion = multiplied(self._in_photo(change.motion, box, _SMOOTH), to_photo)
            moved = warped(inside, motion, (left - x, top - y))
        seen, over = (self._in_photo(field, box, _SMOOTH)[..., None] for field in (change.seen, change.over))
        found: Floats = (seen - over) * moved - seen * here
        return found

    def _part(self, box: Box) -> tuple[slice, slice]:
        """Return the rows and columns of the square that a box of the photo shows; empty ones outside the frame."""
        left, top, right, bottom = box
        places = self.frame.to_square([(x, y) for x in (left, right) for y in (top, bottom)]) * self._side
        low = (np.floor(places.min(axis=0)) - _REACH).clip(0, self._side).astype(int)
        high = (np.ceil(places.max(axis=0)) + _REACH).clip(0, self._side).astype(int)
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def _in_photo(self, field: Floats, box: Box, how: Image.Resampling = Image.Resampling.BICUBIC) -> Floats:
        """Resample a field of the square, [S, S] or [S, S, C], to a box of the photo; 0 outside the frame."""
        left, top, right, bottom = box
        rows, columns = part = self._part(box)
        field = field[part]
        matrix = self.frame.matrix * self._side
        shift = matrix[:, :2] @ (left, top) + matrix[:, 2] - (columns.start, rows.start)
        data = (*matrix[0, :2].tolist(), float(shift[0]), *matrix[1, :2].tolist(), float(shift[1]))
        size = (right - left, bottom - top)
        channels = [np.ascontiguousarray(c) for c in (field[None] if field.ndim == 2 else np.moveaxis(field, -1, 0))]
        moved = [Image.fromarray(c).transform(size, Image.Transform.AFFINE, data, how) for c in channels]
        arrays = [np.asarray(picture, np.float32) for picture in moved]
        return arrays[0] if field.ndim == 2 else np.stack(arrays, axis=-1)


def paste(photo: Photo, frame: Frame, plain: Image8, edited: Image8) -> Image.Image:
    """Return the whole photo with the change between two renders in it; see :class:`Paste`."""
    return Paste(photo, frame, plain)(edited)


def _shrunk(image: Image8, side: int) -> Floats:
    return resized(image.astype(np.float32), (side, side), Image.Resampling.LANCZOS)
