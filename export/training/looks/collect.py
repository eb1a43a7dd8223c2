"""Turns a folder of photos into a set of faces to train on (:mod:`export.training.looks.faces`)."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from export.training.looks.faces import LANDMARKS, FacesError
from judges.faces import Face, FaceDetector, Image8

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
PIXELS = 100_000_000
SIDE = 256
AROUND = 1.5  # of the face's box
LEAST = 64  # pixels of such a square, below which a face is too blurred to learn from


def collect(photos: Path, target: Path) -> int:
    """Find the faces of all photos in a folder and below it, and write them as a set.

    Args:
        photos: the folder.
        target: a new folder: a square picture for each face, and ``landmarks.csv``.

    Returns:
        How many faces were written.

    Raises:
        FacesError: no photo shows a face.
    """
    detector, rows = FaceDetector(), []
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in photos.rglob("*") if p.suffix.lower() in ENDINGS):
        for number, (picture, landmarks) in enumerate(faces_of(path, detector)):
            name = f"{hashlib.sha256(str(path.relative_to(photos)).encode()).hexdigest()[:16]}-{number}.jpg"
            picture.save(target / name, quality=95)
            rows.append([name, *(f"{v:.5f}" for v in landmarks.ravel())])
    if not rows:
        raise FacesError(f"no face in the photos of `{photos}`")
    text = io.StringIO()
    csv.writer(text).writerows([["file", *(f"{axis}{n}" for n in range(5) for axis in "xy")], *rows])
    partial = target / f"{LANDMARKS}.part"
    partial.write_text(text.getvalue())
    partial.replace(target / LANDMARKS)
    return len(rows)


def faces_of(path: Path, detector: FaceDetector) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """The faces of one photo: a square picture, and float [5, 2], the landmarks as shares of its side."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > PIXELS:
                return
            photo = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError):
        return  # one broken photo must not end the search
    pixels: Image8 = np.asarray(photo)
    for face in detector(pixels, side=448):
        side, corner = square_around(face, photo.size)
        if side < LEAST:
            continue
        box = (*corner, corner[0] + side, corner[1] + side)
        yield photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box), (face.landmarks - corner) / side


def square_around(face: Face, size: tuple[int, int]) -> tuple[float, tuple[float, float]]:
    """Side and corner of the square around a face, within a photo of a size (width, height)."""
    left, top, width, height = face.box.tolist()
    side = min(AROUND * max(width, height), *size)
    x, y = left + width / 2 - side / 2, top + height / 2 - side / 2
    return side, (min(max(x, 0), size[0] - side), min(max(y, 0), size[1] - side))
