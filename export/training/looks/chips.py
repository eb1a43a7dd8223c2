"""Close-ups of moved faces: what identity networks see, and the face from eyes to chin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from networks import descriptor, face_net
from networks.similarity import compose, inverse, resample

# Where aligned faces have their eyes, as fractions of the image (means over samples; they scatter by 0.01).
SAMPLE_EYES = ((0.374, 0.469), (0.628, 0.469))


@dataclass(frozen=True)
class Crop:
    """Part of an aligned image, as an ``affine_grid`` matrix, and the size that it is shown at: height, width."""

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
    size: tuple[int, int]

    @classmethod
    def around(cls, eyes: tuple[tuple[float, float], ...], side: int) -> Crop:
        """The square in which aligned eyes come to lie at the given fractions of its side."""
        (left, y), (right, _) = SAMPLE_EYES
        scale = (right - left) / (eyes[1][0] - eyes[0][0])
        corner = left - eyes[0][0] * scale, y - eyes[0][1] * scale
        u, v = (2 * c + scale - 1 for c in corner)
        return cls(((scale, 0.0, u), (0.0, scale, v)), (side, side))

    def sized(self, *size: int) -> Crop:
        """The same part at another size."""
        height, width = size
        return Crop(self.matrix, (height, width))

    def __call__(self, image: Tensor, theta: Tensor) -> Tensor:
        """Cut it out of moved images.

        Args:
            image: float32 [B, 3, S, S].
            theta: float32 [B, 2, 3], how the aligned images were moved.

        Returns:
            float32 [B, 3, *size], upright.
        """
        places = compose(inverse(theta), torch.tensor(self.matrix).to(theta)[None])
        return resample(image, places, self.size)


DLIB = Crop.around(descriptor.EYES, descriptor.SIDE)
FACE_NET = Crop.around(face_net.EYES, face_net.SIDE)
CORE = Crop(((0.42, 0.0, 0.0), (0.0, 0.36, 0.14)), (80, 96))
