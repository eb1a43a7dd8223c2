"""Finds the photo that an edit goes into, and puts it there."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.api import Inverter
from client.atomic import read_bounded
from client.change.paste import Paste
from client.change.together import Together
from client.commands.report import Edit, Edited, progress, warn
from client.errors import ParameterError, PhotoError
from client.files.direction import Direction
from client.files.inversion import Inversion
from client.files.photo import Photo
from client.files.sheet import Picture
from client.frames.frame import Frame
from client.frames.pose import Pose
from client.limits import MAX_BYTES
from client.text import quoted

Image8 = NDArray[np.uint8]
Place = tuple[Photo, Frame]


def place_in(inversion: Inversion, source: Path, given: str | None) -> Place | None:
    """Return the photo of an inversion and its frame: the given one, or one beside the inversion or in this folder.

    Without the photo, it is the square that a refined inversion holds, or None; a warning says so.

    Args:
        inversion: what is edited.
        source: its file.
        given: path of the photo.

    Raises:
        PhotoError: the given photo cannot be read, or is not the one that was inverted.
    """
    if (photo := _photo(inversion, source, given)) is not None:
        return photo, inversion.frame
    held = inversion.target is not None
    what = "the square that was inverted" if held else "the generator's picture"
    with suppress(OSError):
        print(
            f"warning: {quoted(inversion.photo_name)} is not beside the inversion, so this edits {what}: pass --photo "
            "for the whole photo",
            file=sys.stderr,
        )
    if not held:
        return None
    square = Photo(Image.fromarray(inversion.target_pixels()), inversion.photo_name, inversion.photo_sha256)
    return square, Frame.square(square.size)


def changing(inverter: Inverter, inversion: Inversion, place: Place | None) -> tuple[Inversion, Place | None]:
    """Return the code whose change is shown, and the photo with the square where it goes."""
    if place is None:
        return inversion, None
    photo, frame = place
    source = inverter.for_change(inversion, photo)
    return source, (photo, frame if source is inversion else source.frame)


def photo_of(inversions: Sequence[Inversion], source: Path, given: str | None) -> Photo:
    """Return the photo of several inversions: the given one, or one beside the first of them or in this folder.

    Raises:
        ParameterError: they are of different photos.
        PhotoError: the photo cannot be read, is not there, or is not the one that was inverted.
    """
    check_one_photo(inversions)
    first = inversions[0]
    photo = _photo(first, source, given)
    if photo is None:
        raise PhotoError(f"cannot find {quoted(first.photo_name)} beside the inversions: pass --photo")
    for each in inversions:
        each.require_photo(photo)
    return photo


def check_one_photo(inversions: Sequence[Inversion]) -> None:
    """Raise ``ParameterError`` where inversions are of different photos."""
    first = inversions[0]
    for other in inversions[1:]:
        if other.photo_sha256 != first.photo_sha256:
            names = " and ".join(map(quoted, (first.photo_name, other.photo_name)))
            raise ParameterError(f"the inversions are of different photos, {names}: pass those of one photo at a time")


@contextmanager
def edited_together(
    inverter: Inverter, photo: Photo, inversions: Sequence[Inversion], edits: Sequence[Edit], *, quiet: bool
) -> Iterator[list[Edited]]:
    """Give the photo with the edits of all its inversions in it, a picture for each strength, while the block runs."""
    with progress("editing", len(inversions) * (1 + len(edits)), json=quiet) as bar:
        faces, sources = [], [inverter.for_change(inversion, photo) for inversion in inversions]
        for source in sources:
            faces.append((source.frame, inverter.render(source.editable), source.pose))
            bar.update()
        whole = Together(photo, faces)

        def images(direction: Direction, strengths: list[float]) -> Iterator[Picture]:
            for part, pictures in whole.pictures(strengths):
                for index, source in enumerate(sources):
                    renders = list(inverter.edit(source, direction.in_photo, part))
                    whole.add(index, renders, pictures, direction.turned(part), direction.features)
                    bar.update(len(part) / len(strengths))
                while pictures:
                    yield pictures.pop(0)

        yield [Edited(direction, strengths, images(direction, strengths)) for direction, strengths in edits]
    for note in whole.notes:
        warn(photo.name, note)


class Shown:
    """What a command shows of the edits of an inversion: the whole photo with each in it, or the generator's pictures.

    Args:
        place: the photo, and its frame; None for the generator's pictures.
        plain: uint8 RGB [S, S, 3], what the generator makes of the inversion.
        pose: how the face lies in the frame, as for ``Paste``.
    """

    def __init__(self, place: Place | None, plain: Image8, pose: Pose | None = None) -> None:
        self._place, self._plain, self._pose = place, plain, pose
        self._warned = False

    def __call__(self, direction: Direction, strengths: Sequence[float], images: Sequence[Image8]) -> Iterator[Picture]:
        """Yield a picture for each edit along a direction, uint8 RGB [S, S, 3], as it is asked for."""
        for image, turn in zip(images, direction.turned(strengths), strict=True):
            if self._paste is None:
                yield image
                continue
            if not turn and not self._warned:
                warn(self._paste.photo.name, self._paste.note)
                self._warned = True
            yield self._paste(image, turn=turn, features=direction.features)

    def rendered(self, direction: Direction) -> Direction:
        """Return the direction along which to render the images that are to be shown."""
        return direction if self._place is None else direction.in_photo

    @cached_property
    def _paste(self) -> Paste | None:
        return None if self._place is None else Paste(*self._place, self._plain, pose=self._pose)


def _photo(inversion: Inversion, source: Path, given: str | None) -> Photo | None:
    if given is not None:
        photo = Photo.open(given)
        inversion.require_photo(photo)
        warn(photo.name, photo.note)
        return photo
    for path in dict.fromkeys((source.parent / inversion.photo_name, Path(inversion.photo_name))):
        if _is(path, inversion.photo_sha256):
            photo = Photo.open(path)
            inversion.require_photo(photo)
            return photo
    return None


def _is(path: Path, digest: str) -> bool:
    try:
        data = read_bounded(path, limit=MAX_BYTES, error=PhotoError)
    except (PhotoError, ValueError):
        return False
    return hashlib.sha256(data).hexdigest() == digest
