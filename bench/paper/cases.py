"""What is inverted: aligned faces, moved by degrees (Figure 1), and photos as they are (Figure 2).

Every face is moved its own way: to which side, and whether clockwise, is drawn from the seed and the face's name, and
is the same at every degree.
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
from judges.alignment import aligned_square
from judges.faces import FaceDetector

PLAIN = "plain"
# Share of the side, degrees, and factor of the size.
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
        name: of the photo's file, or ``sample SEED``.
        group: ``photos`` or ``samples``.
        transform: ``plain`` or a key of ``DEGREES``.
        degree: 0 where it is plain.
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
        squares: each readable photo's name and its largest centred square, uint8 [1024, 1024, 3].
        faces: the aligned squares of those that show a face.
        unreadable: a sentence for each of the others.
        faceless: names of photos without a face.
    """

    squares: dict[str, Image8] = field(default_factory=dict)
    faces: dict[str, Image8] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    faceless: list[str] = field(default_factory=list)


def read_photos(folder: Path, *, most: int) -> Photos:
    """Read up to ``most`` photos of a folder, by name; files whose names begin with a dot are not looked at.

    Raises:
        ValueError: there is no such folder, or no photo in it.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    detector, found = FaceDetector(), Photos()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if len(found.squares) == most:
            break
        try:
            photo = Photo.open(path)
            square = photo.pixels(photo.square(), SIDE)
        except PhotoError as problem:
            found.unreadable.append(str(problem))
            continue
        found.squares[path.name] = square
        whole = np.asarray(photo.image)
        face = detector.portrait(whole)
        if face is None:
            found.faceless.append(path.name)
        else:
            found.faces[path.name] = aligned_square(whole, face, size=SIDE)
    if not found.squares:
        raise ValueError(f"There is no photo in {folder} that can be read.")
    return found


def move_of(transform: str, degree: float, *, name: str, seed: int) -> Move:
    """How a face is moved.

    Args:
        transform: a key of ``DEGREES``.
        degree: share of the side, degrees, or factor of the size.
        name: of the face.
        seed: of the run.
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
    """Each face as it is, and moved by every degree of every transform; the border is reflected."""
    for name, image in faces.items():
        yield Case(1, name, group, PLAIN, 0.0, image)
        for transform, steps in degrees.items():
            for degree in steps:
                move = move_of(transform, degree, name=name, seed=seed)
                yield Case(1, name, group, transform, degree, moved(image, move))


def figure_two(squares: Mapping[str, Image8]) -> Iterator[Case]:
    """Each photo as it is."""
    for name, image in squares.items():
        yield Case(2, name, "photos", PLAIN, 0.0, image)
