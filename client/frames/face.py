"""``Face``: what the served face finder says of one face of a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.errors import AnswerRefused
from client.frames.frame import Frame, fault, transform_between
from client.frames.pose import PROFILE, Pose

# The finder sees a tilted face about half as tilted as it is, unless it is nearly upright.
LOOKS = 4
LOOK_SIDE = 512
_LEVEL = 1.5  # degrees
_TURN = 1.7
_ASIDE = 0.2  # of the square's side: another face lies further from where this one was
_LARGER = 1.6


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in pixels of the photo as shown.

    Attributes:
        box: left, top, width, height, float64 [4]; it may reach outside the photo.
        landmarks: float64 [5, 2], x and y of the eye at the left of the image, the other eye, the nose's tip, the
            mouth's corner at the left, the other corner.
        score: how sure the finder is, 0 to 1.
    """

    box: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    score: float

    @property
    def area(self) -> float:
        """Area of the box in pixels."""
        return float(self.box[2] * self.box[3])

    @property
    def yaw(self) -> float:
        """How far the face is turned, as in :class:`client.frames.pose.Pose`, up to a profile."""
        across, nose = self.landmarks[1] - self.landmarks[0], self.landmarks[2]
        eyes, mouth = self.landmarks[:2].mean(axis=0), self.landmarks[3:].mean(axis=0)
        (x, y), down = nose - eyes, mouth - eyes
        yaw = float((x * down[1] - y * down[0]) / (np.hypot(*down) * np.hypot(*across)))
        return max(-PROFILE, min(PROFILE, yaw))

    def report(self) -> dict[str, Any]:
        """Return plain values."""
        return {"box": self.box.tolist(), "landmarks": self.landmarks.tolist(), "score": self.score}


def shrunk(image: Image.Image, largest: int) -> NDArray[np.uint8]:
    """Return a photo as the finder takes it: uint8 RGB [H, W, 3], its longer side at most ``largest`` pixels."""
    scale = min(1.0, largest / max(image.size))
    if scale == 1:
        return np.array(image)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))


def pose_in(faces: Sequence[Face], frame: Frame) -> Pose | None:
    """Return how the face lies in a frame that shows it; None where none of the faces does.

    In a frame that was cut to a face it is the one nearest to the middle, in any other the first whose middle it holds.
    """
    usable = [(face, Frame.aligned(face.landmarks)) for face in faces if fault(face.landmarks) is None]
    held = [(face, aligned) for face, aligned in usable if frame.holds(aligned.middle)]
    if not held:
        return None
    face, aligned = held[0]
    if frame.kind in ("aligned", "upright"):
        face, aligned = min(held, key=lambda one: float(np.hypot(*(one[1].middle - frame.middle))))
    return Pose(transform_between(frame, aligned), face.yaw)


def look_at(face: Face, seen: Frame | None, size: tuple[int, int]) -> Frame | None:
    """Return the square in which a tilted face is upright, as far as is known; None where another look has no use.

    Args:
        face: as it was found.
        seen: the square it was found in; None for the whole photo.
        size: width and height of the photo.
    """
    if fault(face.landmarks) is not None:
        return None
    frame = Frame.aligned(face.landmarks)
    before = 0.0 if seen is None else seen.angle
    tilt = (frame.angle - before + 180) % 360 - 180
    if abs(tilt) < _LEVEL:
        return None
    square = frame.turned(before + _TURN * tilt - frame.angle)
    return square if square.shows(size) else None


def seen_again(face: Face, square: Frame, found: Sequence[Face]) -> Face | None:
    """Return a face with the landmarks of another look at it; None where that shows no such face.

    Args:
        face: as it was found before.
        square: what was looked at.
        found: the faces in it, in its pixels, of which it has ``LOOK_SIDE`` along each side.
    """
    there = square.to_square(face.landmarks)
    places = [other.landmarks / LOOK_SIDE for other in found if fault(other.landmarks) is None]
    aside = [float(np.hypot(*(points - there).mean(axis=0))) for points in places]
    if not places or min(aside) > _ASIDE:
        return None
    nearest = places[int(np.argmin(aside))]
    before, now = (float(np.hypot(*(points[1] - points[0]))) for points in (there, nearest))
    if not before / _LARGER < now < before * _LARGER:
        return None
    return replace(face, landmarks=square.to_photo(nearest))


def faces_of(
    boxes: NDArray[np.float32], landmarks: NDArray[np.float32], scores: NDArray[np.float32], scale: Sequence[float]
) -> list[Face]:
    """Return the faces of an answer, the largest first.

    Args:
        boxes: float32 [N, 4].
        landmarks: float32 [N, 5, 2].
        scores: float32 [N]; 0 where there is no face.
        scale: pixels of the photo for each pixel of the image that was sent, along x and y.

    Raises:
        AnswerRefused: the answer is malformed.
    """
    count = len(scores)
    if boxes.shape != (count, 4) or landmarks.shape != (count, 5, 2):
        raise AnswerRefused("the face finder's answer has faces of different numbers")
    factor = np.asarray(scale, np.float64)
    faces = [
        Face(box * np.tile(factor, 2), points * factor, float(score))
        for box, points, score in zip(boxes, landmarks, scores, strict=True)
        if score > 0
    ]
    if any((face.box[2:] <= 0).any() for face in faces):
        raise AnswerRefused("the face finder's answer has a face without a size")
    return sorted(faces, key=lambda face: -face.area)
