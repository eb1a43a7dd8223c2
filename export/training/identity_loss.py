"""A loss that asks for the same person: distance of dlib's face descriptors (:mod:`networks.descriptor`), which none of
the measures of quality uses. For generators of faces that are aligned as FFHQ's are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assets.descriptor import descriptor
from networks.close_ups import DLIB


class IdentityLoss(nn.Module):
    """Squared distance of the descriptors of two faces; below 0.36, dlib calls them the same person."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = descriptor()

    def forward(self, image: Tensor, target: Tensor, theta: Tensor) -> Tensor:
        """float32 [B, 3, S, S] in [-1, 1] twice, theta [B, 2, 3] -> float32 [B]."""
        ours = self.descriptor(DLIB(image, theta))
        with torch.no_grad():
            true = self.descriptor(DLIB(target, theta))
        distance: Tensor = (ours - true).square().sum(dim=1)
        return distance
