"""A loss that asks for the same person: distance of dlib's face descriptors (:mod:`networks.descriptor`), which none of
the measures of quality uses. For generators of faces that are aligned as FFHQ's are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assets.descriptor import descriptor
from networks.descriptor import EYES, SIDE

# Where aligned faces have their eyes, as fractions of the image (means over samples; they scatter by 0.01).
SAMPLE_EYES = ((0.374, 0.469), (0.628, 0.469))


def face_crop() -> Tensor:
    """The face chip of an aligned image, as an ``affine_grid`` matrix, float32 [2, 3]."""
    (left, y), (right, _) = SAMPLE_EYES
    side = (right - left) / (EYES[1][0] - EYES[0][0])
    corner = left - EYES[0][0] * side, y - EYES[0][1] * side
    x, y = (2 * c + side - 1 for c in corner)
    return torch.tensor([[side, 0.0, x], [0.0, side, y]])


def inverse(theta: Tensor) -> Tensor:
    """Similarity transforms the other way round: ``affine_grid`` matrices, float32 [B, 2, 3]."""
    square = torch.cat([theta, torch.tensor([[[0.0, 0.0, 1.0]]]).to(theta).expand(len(theta), -1, -1)], dim=1)
    back: Tensor = torch.linalg.inv(square)[:, :2]
    return back


class IdentityLoss(nn.Module):
    """Squared distance of the descriptors of two images' faces; 0.36 is where dlib ends the same person."""

    crop: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = descriptor()
        self.register_buffer("crop", face_crop())

    def chips(self, image: Tensor, theta: Tensor) -> Tensor:
        """The faces of moved images.

        Args:
            image: float32 [B, 3, S, S] in [-1, 1].
            theta: float32 [B, 2, 3], how the aligned images were moved (:func:`export.training.moves.move`).

        Returns:
            float32 [B, 3, 150, 150], upright and of one size.
        """
        back = inverse(theta)
        grid = torch.cat([back[:, :, :2] @ self.crop[:, :2], back[:, :, :2] @ self.crop[:, 2:] + back[:, :, 2:]], dim=2)
        places = F.affine_grid(grid, [len(image), 3, SIDE, SIDE], align_corners=False)
        return F.grid_sample(image, places, padding_mode="reflection", align_corners=False)

    def forward(self, image: Tensor, target: Tensor, theta: Tensor) -> Tensor:
        """float32 [B, 3, S, S] in [-1, 1] twice, theta [B, 2, 3] -> float32 [B]."""
        ours = self.descriptor(self.chips(image, theta))
        with torch.no_grad():
            true = self.descriptor(self.chips(target, theta))
        distance: Tensor = (ours - true).square().sum(dim=1)
        return distance
