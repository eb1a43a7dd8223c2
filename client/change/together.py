"""Puts edits of several faces of a photo into one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.change.paste import Paste
from client.files.photo import Photo
from client.frames.frame import Frame
from client.frames.pose import Pose

Image8 = NDArray[np.uint8]
# Registering a face again costs a second, and keeping it up to 100 MB.
_KEPT: Final = 4
_BYTES: Final = 400 * 2**20


class Together:
    """A photo whose faces are edited together, the same pictures face after face.

    Args:
        photo: the photo; it is not changed.
        faces: their frames, what the generator makes of their codes, uint8 RGB [S, S, 3] each, and where they lie in
            the frames, as for ``Paste``.

    Raises:
        PhotoError: a frame does not show enough of the photo.
    """

    def __init__(self, photo: Photo, faces: Sequence[tuple[Frame, Image8, Pose | None]]) -> None:
        for frame, *_ in faces:
            frame.require_photo(photo.size, name=photo.name)
        self._photo, self._faces = photo, faces
        self._pastes: dict[int, Paste] = {}
        self._notes: dict[int, str] = {}
        # Pillow keeps four bytes a pixel.
        self._bytes = 4 * photo.image.width * photo.image.height
        self._most_kept = _KEPT if self._bytes < _BYTES / 2 else 1

    def pictures(self, strengths: Sequence[float]) -> Iterator[tuple[Sequence[float], list[Image.Image]]]:
        """Yield strengths with a copy of the photo each, as many at a time as memory allows."""
        most = max(1, _BYTES // self._bytes)
        for first in range(0, len(strengths), most):
            part = strengths[first : first + most]
            yield part, [self._photo.canvas() for _ in part]

    def add(
        self,
        index: int,
        renders: Sequence[Image8],
        pictures: Sequence[Image.Image],
        turns: Sequence[float],
        features: float = 1.0,
    ) -> None:
        """Put edits of one face into pictures.

        Args:
            index: the face's place in ``faces``.
            renders: uint8 RGB [S, S, 3] each, its edited renders.
            pictures: pictures from :meth:`pictures`; changed in place.
            turns: as ``turn`` of ``Paste``, one each.
            features: as of ``Paste``.
        """
        paste = self._paste(index)
        for render, picture, turn in zip(renders, pictures, turns, strict=True):
            paste(render, turn=turn, features=features, onto=picture)
            if not turn:
                self._notes[index] = paste.note

    @property
    def notes(self) -> list[str]:
        """What to know of the edits so far, a sentence for each face of which there is something to know."""
        count = len(self._faces)
        found = [(index, note) for index, note in sorted(self._notes.items()) if note]
        return [note if count == 1 else f"face {index + 1} of {count}: {note}" for index, note in found]

    def _paste(self, index: int) -> Paste:
        if (found := self._pastes.get(index)) is None:
            frame, plain, pose = self._faces[index]
            others = [other for number, (other, *_) in enumerate(self._faces) if number != index]
            found = Paste(self._photo, frame, plain, others=others, pose=pose)
            if len(self._pastes) < self._most_kept:
                self._pastes[index] = found
        return found
