"""Finds the photo that an edit goes into, and puts it there."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.atomic import read_bounded
from client.change.paste import Paste
from client.commands.report import warn
from client.errors import PhotoError
from client.files.inversion import Inversion
from client.files.photo import Photo
from client.files.sheet import Picture
from client.frames.frame import Frame
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
    if given is not None:
        photo = Photo.open(given)
        inversion.require_photo(photo)
        warn(photo.name, photo.note)
        return photo, inversion.frame
    for path in dict.fromkeys((source.parent / inversion.photo_name, Path(inversion.photo_name))):
        if _is(path, inversion.photo_sha256):
            photo = Photo.open(path)
            inversion.require_photo(photo)
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


def shown(place: Place | None, plain: Image8, images: Sequence[Image8]) -> Sequence[Picture]:
    """Return the whole photo with each edit in it; without a place, the generator's pictures.

    Args:
        place: the photo, and its frame.
        plain: uint8 RGB [S, S, 3], what the generator makes of the inversion.
        images: uint8 RGB [S, S, 3] each, edited.
    """
    if place is None:
        return images
    paste = Paste(*place, plain)
    return [paste(image) for image in images]


def _is(path: Path, digest: str) -> bool:
    try:
        data = read_bounded(path, limit=MAX_BYTES, error=PhotoError)
    except (PhotoError, ValueError):
        return False
    return hashlib.sha256(data).hexdigest() == digest
