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
# An eye with its lids, as large as in a picture of 1024 px.
EYES = tuple(Crop(((0.14, 0.0, 2 * x - 1), (0.0, 0.094, 2 * y - 1)), (96, 144)) for x, y in SAMPLE_EYES)


def ffhq_square(landmarks: Tensor) -> Tensor:
    """FFHQ's aligned squares (Karras et al., CVPR 2019, appendix A), from five landmarks.

    Args:
        landmarks: float32 [N, 5, 2], as shares of a square picture's side.

    Returns:
        float32 [N, 2, 3], as for ``affine_grid``: from places of the aligned square to places of the picture.
    """
    left, right, mouth = landmarks[:, 0], landmarks[:, 1], landmarks[:, 3:].mean(dim=1)
    eyes = (left + right) / 2
    across, down = right - left, mouth - eyes
    x = across + torch.stack([down[:, 1], -down[:, 0]], 1)
    side = torch.maximum(4 * across.norm(dim=1), 3.6 * down.norm(dim=1))
    x = x / x.norm(dim=1, keepdim=True) * side[:, None]
    middle = 2 * (eyes + 0.1 * down) - 1
    return torch.stack(
        [torch.stack([x[:, 0], -x[:, 1], middle[:, 0]], 1), torch.stack([x[:, 1], x[:, 0], middle[:, 1]], 1)], 1
    )
