"""Images to reconstruct: photos, held-out faces and generator samples, plain and moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from client.errors import PhotoError
from client.files.photo import Photo
from client.frames.frame import Frame
from export.training.looks.faces import read_faces
from networks.pixels import to_array
from networks.similarity import IDENTITY

Image8 = NDArray[np.uint8]

SIDE = 1024
DEGREES = 20.0
# The first seed that training does not use.
FIRST_SEED = 1000


@dataclass(frozen=True)
class Move:
    """A rotation and scaling about the centre of a square, then a shift.

    Attributes:
        degrees: anticlockwise.
        scale: above 1 enlarges the content.
        right: shift to the right, as a share of the side; rounded to whole pixels.
        down: shift downwards, in the same units.
    """

    degrees: float = 0.0
    scale: float = 1.0
    right: float = 0.0
    down: float = 0.0


VARIANTS: Mapping[str, Move] = {
    "plain": Move(),
    "rotated-20": Move(degrees=-DEGREES),
    "rotated+20": Move(degrees=DEGREES),
    "shifted": Move(right=0.12, down=0.12),
    "smaller": Move(scale=0.8),
    "larger": Move(scale=1.2),
}


@dataclass(frozen=True, eq=False)
class TargetImage:
    """An image to reconstruct, uint8 RGB [1024, 1024, 3], with the name and group of its picture, and its variant."""

    name: str
    group: str
    variant: str
    image: Image8


def moved(image: Image8, move: Move) -> Image8:
    """Move a square image [S, S, 3], reflected at its border; without a move the pixels stay the same."""
    side = image.shape[0]
    margin = side // 2
    size, middle = side + 2 * margin, margin + side / 2
    padded = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    # Maps a pixel of the result to its source in the padded image.
    angle = -math.radians(move.degrees % 360)
    cos, sin = round(math.cos(angle), 15) / move.scale, round(math.sin(angle), 15) / move.scale
    x, y = (-middle - round(share * side) for share in (move.right, move.down))
    matrix = (cos, sin, cos * x + sin * y + middle, -sin, cos, -sin * x + cos * y + middle)
    result = padded.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(result.crop((margin, margin, margin + side, margin + side)))


def targets(images: Sequence[tuple[str, str, Image8]], variants: Sequence[str]) -> Iterator[TargetImage]:
    """Each image (name, group, pixels) in each variant."""
    for name, group, image in images:
        for variant in variants:
            yield TargetImage(name, group, variant, moved(image, VARIANTS[variant]))


def heldout(path: Path, count: int) -> Iterator[tuple[str, Image8]]:
    """Name and picture, uint8 [1024, 1024, 3], of held-out faces of a set, as nearly aligned as they reach.

    Raises:
        FacesError: the set cannot be read.
    """
    faces = read_faces(path)
    for number in faces.heldout[:: max(1, len(faces.heldout) // max(1, count))][:count].tolist():
        place = IDENTITY[None].clone()
        place[:, :, :2] /= max(1.0, 1.2 * faces.zooms(number)[0])
        view, _ = faces.views(torch.tensor([number]), place, torch.tensor([False]))
        picture = Image.fromarray(to_array(view)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        yield f"{path.stem} {number}", np.asarray(picture)


def photos(folder: Path) -> Iterator[tuple[str, Image8]]:
    """Name and centre square, uint8 [1024, 1024, 3], of each photo in a folder; nothing if there is no folder."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with suppress(PhotoError):
            photo = Photo.open(path)
            yield path.stem, photo.pixels(Frame.square(photo.size), SIDE)
