"""The images to invert: aligned faces, moved by degrees (Figure 1), and unmoved photos (Figure 2).

The direction in which a face is moved is random. It depends on the seed and the name of the face, and is the same at
every degree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.targets import SIDE, Image8, Move, moved
from client.errors import PhotoError
from client.files.photo import Photo
from client.frames.frame import Frame
from judges.faces import FaceDetector

PLAIN = "plain"
# Share of the side, degrees, and scale.
DEGREES: Mapping[str, Sequence[float]] = {
    "translation": (0.1, 0.2, 0.3),
    "rotation": (15, 30, 45),
    "scale": (0.6, 0.8, 1.25, 1.6),
}
QUICK: Mapping[str, Sequence[float]] = {"translation": (0.1, 0.25), "rotation": (15, 40), "scale": (0.7, 1.4)}


@dataclass(frozen=True, eq=False)
class Case:
    """One image to invert.

    Attributes:
        figure: 1 or 2.
        name: the file name of the photo, or ``sample SEED``.
        group: ``photos`` or ``samples``.
        transform: ``plain`` or a key of ``DEGREES``.
        degree: 0 if plain.
        image: uint8 RGB [1024, 1024, 3].
    """

    figure: int
    name: str
    group: str
    transform: str
    degree: float
    image: Image8


@dataclass
class Photos:
    """The photos of a folder.

    Attributes:
        squares: the largest centred square of each readable photo, uint8 [1024, 1024, 3], by name.
        faces: the aligned square of each photo with a face, uint8 [1024, 1024, 3], by name.
        unreadable: an error message per unreadable file.
        faceless: names of the photos without a face.
    """

    squares: dict[str, Image8] = field(default_factory=dict)
    faces: dict[str, Image8] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    faceless: list[str] = field(default_factory=list)


def read_photos(folder: Path, *, most: int) -> Photos:
    """Read up to ``most`` photos of a folder, sorted by name; hidden files are ignored.

    Raises:
        ValueError: the folder does not exist, or contains no readable photo.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    detector, read = FaceDetector(), Photos()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if len(read.squares) == most:
            break
        try:
            photo = Photo.open(path)
            square = photo.pixels(Frame.square(photo.size), SIDE)
        except PhotoError as exc:
            read.unreadable.append(str(exc))
            continue
        read.squares[path.name] = square
        whole = np.asarray(photo.image)
        face = detector.portrait(whole)
        if face is None:
            read.faceless.append(path.name)
        else:
            read.faces[path.name] = photo.pixels(Frame.aligned(face.landmarks), SIDE)
    if not read.squares:
        raise ValueError(f"no readable photo in {folder}")
    return read


def move_of(transform: str, degree: float, *, name: str, seed: int) -> Move:
    """The move of a face.

    Args:
        transform: a key of ``DEGREES``.
        degree: share of the side, degrees, or scale.
        name: the name of the face.
        seed: the seed of the run.
    """
    digest = hashlib.sha256(f"{seed} {name} {transform}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    if transform == "rotation":
        return Move(degrees=degree * (1 if rng.random() < 0.5 else -1))
    if transform == "scale":
        return Move(scale=degree)
    angle = rng.uniform(0, 2 * math.pi)
    return Move(right=degree * math.cos(angle), down=degree * math.sin(angle))


def figure_one(
    faces: Mapping[str, Image8], group: str, degrees: Mapping[str, Sequence[float]], *, seed: int
) -> Iterator[Case]:
    """Each face unmoved, and moved by every degree of every transform, with a reflected border."""
    for name, image in faces.items():
        yield Case(1, name, group, PLAIN, 0.0, image)
        for transform, steps in degrees.items():
            for degree in steps:
                move = move_of(transform, degree, name=name, seed=seed)
                yield Case(1, name, group, transform, degree, moved(image, move))


def figure_two(squares: Mapping[str, Image8]) -> Iterator[Case]:
    """Each photo, unmoved."""
    for name, image in squares.items():
        yield Case(2, name, "photos", PLAIN, 0.0, image)
