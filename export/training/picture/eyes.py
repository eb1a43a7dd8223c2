"""Where the eyes are: half of the crops show one, and errors in them weigh more."""

from __future__ import annotations

import torch
from torch import Tensor

from networks.close_ups import SAMPLE_EYES
from networks.short_head import SIZE
from networks.similarity import inverse

WEIGHT = 4.0  # of an error in the middle of an eye, beyond what it weighs elsewhere
WIDTH = 0.2  # of the Gaussian about it, in distances of the eyes


def places(theta: Tensor) -> Tensor:
    """Column and row of both eyes, in px of a picture of 256 px.

    Args:
        theta: float32 [B, 2, 3], how the aligned faces were moved.

    Returns:
        float32 [B, 2, 2]; an eye may lie beyond the border.
    """
    back = inverse(theta)
    aligned = 2 * torch.tensor(SAMPLE_EYES).to(theta) - 1
    moved = (back[:, None, :, :2] * aligned[:, None]).sum(3) + back[:, None, :, 2]
    return (moved + 1) * SIZE / 2 - 0.5


def weights(eyes: Tensor) -> Tensor:
    """How much an error weighs at each place: float32 [B, 2, 2] of `places` -> [B, 1, 256, 256]."""
    distance = (eyes[:, 0] - eyes[:, 1]).norm(dim=1)[:, None, None, None]
    at = torch.arange(SIZE).to(eyes)
    apart = (at - eyes[:, :, 0, None])[:, :, None].square() + (at - eyes[:, :, 1, None])[..., None].square()
    return 1 + WEIGHT * torch.exp(-apart / (2 * (WIDTH * distance).square())).sum(1, keepdim=True)
