"""A small critic of full-size crops: it learns to tell what the generator paints from what our codes show.

A hinge loss (Lim and Ye, 2017) on patches (Isola et al., CVPR 2017): a few pixels are enough to spot crackle.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Critic(nn.Module):
    """float32 [B, 3, S, S] in [-1, 1] -> scores [B, 1, S / 8 - 2, S / 8 - 2], above 0 for the generator's own."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 4 * width):
            conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, out, 4, 2, 1))
            layers += [conv, nn.LeakyReLU(0.2)]
            channels = out
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3))

    def forward(self, crop: Tensor) -> Tensor:
        """See the class."""
        score: Tensor = self.body(crop)
        return score


def critic_loss(critic: Critic, true: Tensor, ours: Tensor) -> Tensor:
    """Hinge loss of a critic: a scalar. Either may be empty."""
    loss = torch.zeros(())
    if len(true):
        loss = loss + F.relu(1 - critic(true)).mean()
    if len(ours):
        loss = loss + F.relu(1 + critic(ours.detach())).mean()
    return loss
