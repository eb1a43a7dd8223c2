"""Faces in images: the face finder that is also served (``networks.yunet``), and crops aligned by its landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from assets.yunet import face_finder

Image8 = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Sides at which portraits are searched: YuNet is trained on faces of 10 to 300 px, so they must not fill the input.
SIDES = (320, 448)


@dataclass(frozen=True)
class Face:
    """One face, in pixels of the image it was found in.

    Attributes:
        box: float32 [4], left, top, width, height.
        landmarks: float32 [5, 2], x and y of the eye at the left of the image, the other eye, the nose's tip, the
            mouth's corner at the left, the other corner.
        score: 0 to 1.
    """

    box: Floats
    landmarks: Floats
    score: float

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return float(np.linalg.norm(self.landmarks[1] - self.landmarks[0]))


class FaceDetector:
    """YuNet.

    Args:
        threshold: the least score of a face, 0 to 1.
    """

    def __init__(self, *, threshold: float = 0.6) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, not {threshold}")
        self._finder = face_finder(levels=1, threshold=threshold)

    def __call__(self, image: Image8, *, side: int = SIDES[0]) -> list[Face]:
        """The faces of an image, best first.

        Args:
            image: uint8 [H, W, 3], RGB, of any size.
            side: the image is resized so that its longer side has this many pixels, in a black square of that side.
        """
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.dtype == np.uint8
        height, width = image.shape[:2]
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = np.zeros((side, side, 3), np.uint8)
        canvas[: size[1], : size[0]] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        boxes, landmarks, scores = (value.numpy() for value in self._finder(torch.from_numpy(canvas)))
        unscale = np.array([width / size[0], height / size[1]], np.float32)
        return [
            Face(box * np.tile(unscale, 2), points * unscale, float(score))
            for box, points, score in zip(boxes, landmarks, scores, strict=True)
            if score > 0
        ]

    def portrait(self, image: Image8) -> Face | None:
        """The face with the largest box, or None; its landmarks are the mean over two scales and both mirror images.

        One detection's landmarks scatter by a few hundredths of the eye distance, which is as much as a smile moves
        them; the mean scatters half as much.

        Args:
            image: uint8 [H, W, 3], RGB, of any size.
        """
        found = [_largest(self(image, side=side)) for side in SIDES]
        mirror = np.ascontiguousarray(image[:, ::-1])
        found += [_mirrored(_largest(self(mirror, side=side)), image.shape[1]) for side in SIDES]
        if (first := found[0]) is None:
            return None
        same = [face for face in found if face and _overlap(face.box, first.box) > 0.5]
        return Face(first.box, np.mean([face.landmarks for face in same], axis=0), first.score)


def _largest(faces: list[Face]) -> Face | None:
    return max(faces, key=lambda face: float(face.box[2] * face.box[3]), default=None)


def _mirrored(face: Face | None, width: int) -> Face | None:
    if face is None:
        return None
    left = width - face.box[0] - face.box[2]
    points = face.landmarks[[1, 0, 2, 4, 3]] * np.array([-1, 1], np.float32) + np.array([width, 0], np.float32)
    return Face(np.concatenate([[left], face.box[1:]]).astype(np.float32), points, face.score)


def _overlap(a: Floats, b: Floats) -> float:
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    common = float(np.prod((high - low).clip(min=0)))
    return common / (float(np.prod(a[2:]) + np.prod(b[2:])) - common)


def similarity(source: Floats, target: Floats) -> NDArray[np.float64]:
    """The similarity transform (rotation, scale, shift) that brings points nearest to others, in least squares.

    Args:
        source: float [N, 2].
        target: float [N, 2].

    Returns:
        float64 [2, 3]: ``target ~ source @ m[:, :2].T + m[:, 2]``.
    """
    # As complex numbers the transform is z -> a z + b, and a linear regression gives a and b.
    s, t = (p[:, 0].astype(np.float64) + 1j * p[:, 1] for p in (source, target))
    a = np.vdot(s - s.mean(), t - t.mean()) / np.vdot(s - s.mean(), s - s.mean())
    b = t.mean() - a * s.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def aligned(image: Image8, source: Floats, target: Floats, *, size: int) -> Image8:
    """A square crop that puts points of the image in given places.

    Args:
        image: uint8 [H, W, 3], RGB.
        source: float [N, 2], points of the image, x and y in pixels.
        target: float [N, 2], where they belong in the crop.
        size: side of the crop in pixels.

    Returns:
        uint8 [size, size, 3]; black where it reaches outside the image.
    """
    transform = similarity(source, target)
    picture = Image.fromarray(image)
    # Pillow's affine transform does not filter when it shrinks: shrink by a whole factor first.
    shrink = max(1, int(1 / np.hypot(*transform[:, 0])))
    picture = picture.reduce(shrink)
    inverse = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2] / shrink
    return np.asarray(
        picture.transform((size, size), Image.Transform.AFFINE, inverse.ravel().tolist(), Image.Resampling.BICUBIC)
    )
