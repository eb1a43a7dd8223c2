"""Whether a reconstruction has the photo's eyes: equally open, and looking the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from judges.faces import Face, Image8

# Side of a patch, in eye distances: an eye with its lids, without the brow.
PATCH = 0.5
_SIDE = 32


def eye_likeness(target: Image8, reconstruction: Image8, face: Face) -> float:
    """Correlation of the grey patches around the eyes, the smaller of the two; 1 for equal eyes.

    A closed, milky or displaced eye, and a second pupil, correlate little with an open one.

    Args:
        target: uint8 [S, S, 3], the photo.
        reconstruction: uint8 [S, S, 3].
        face: of the photo.
    """
    assert target.shape == reconstruction.shape
    return min(_correlation(*(_patch(image, face, eye) for image in (target, reconstruction))) for eye in (0, 1))


def _patch(image: Image8, face: Face, eye: int) -> NDArray[np.float64]:
    """float64 [32, 32]: one eye, grey."""
    x, y = face.landmarks[eye]
    half = PATCH * face.eye_distance / 2
    left, top, right, bottom = np.clip((x - half, y - half, x + half, y + half), 0, len(image)).tolist()
    grey, size = Image.fromarray(image).convert("L"), (_SIDE, _SIDE)
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)), np.float64)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / size if size else 0.0
