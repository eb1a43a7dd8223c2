"""Similarity transforms of images and feature maps, as the matrices of ``affine_grid``.

A matrix ``theta`` maps places in the output, in [-1, 1], to places in the input. ``move(x, theta)`` is the paper's
geometric transformation T, from an aligned face to an unaligned photo, and between their feature maps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IDENTITY = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def square(theta: Tensor) -> Tensor:
    """The matrices with their last row: float32 [B, 2, 3] -> [B, 3, 3]."""
    return torch.cat([theta, torch.tensor([[[0.0, 0.0, 1.0]]]).to(theta).expand(theta.shape[0], -1, -1)], dim=1)


def inverse(theta: Tensor) -> Tensor:
    """The inverse transforms, float32 [B, 2, 3], in operators that every exporter supports."""
    a, b = theta[:, 0, 0], theta[:, 1, 0]
    x, y = theta[:, 0, 2], theta[:, 1, 2]
    scale = a * a + b * b
    c, s = a / scale, b / scale
    return torch.stack([torch.stack([c, s, -(c * x + s * y)], 1), torch.stack([-s, c, s * x - c * y], 1)], 1)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """First ``inner``, then ``outer``: float32 [B, 2, 3] each; either may be a batch of 1."""
    # Not a matrix product, which autocast would round.
    return (outer[:, :, :, None] * square(inner)[:, None]).sum(dim=2)


def resample(x: Tensor, theta: Tensor, size: tuple[int, int], *, mode: str = "bilinear") -> Tensor:
    """Sample ``x`` at the places of ``theta``, reflecting at the border.

    Args:
        x: float [B, C, H, W].
        theta: float32 [B, 2, 3].
        size: height and width of the result.
        mode: ``bilinear`` or ``bicubic``.

    Returns:
        float [B, C, *size].
    """
    # Not len(x), which a trace takes for a constant.
    places = F.affine_grid(theta, [x.shape[0], x.shape[1], *size], align_corners=False)
    return F.grid_sample(x, places, mode=mode, padding_mode="reflection", align_corners=False)


def move(x: Tensor, theta: Tensor) -> Tensor:
    """T of feature maps or images, at the same size; the identity changes nothing, to the last bit.

    Args:
        x: float32 [B, C, S, S].
        theta: float32 [B, 2, 3].

    Returns:
        float32 [B, C, S, S].
    """
    moved = resample(x, theta, (x.shape[2], x.shape[3]))
    still = (theta == IDENTITY.to(theta)).all(dim=(1, 2))
    return torch.where(still[:, None, None, None], x, moved)
