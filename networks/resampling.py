"""Blurring and up-sampling, as convolutions with constant weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def binomial(*taps: float) -> Tensor:
    """A separable filter of sum 1, float32 [n, n]: taps (1, 3, 3, 1) in StyleGAN2, (1, 2, 1) in StyleGAN."""
    line = torch.tensor(taps)
    return torch.outer(line, line) / line.sum() ** 2


def blur(x: Tensor, kernel: Tensor, *, gain: float = 1.0) -> Tensor:
    """Filter every channel, padded by one zero on each side.

    Args:
        x: float [B, C, S, S].
        kernel: float [n, n], symmetric.
        gain: factor on the result.

    Returns:
        float [B, C, S + 3 - n, S + 3 - n].
    """
    count = x.shape[1]
    return F.conv2d(x, (gain * kernel).to(x.dtype).expand(count, 1, -1, -1), padding=1, groups=count)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the size: put zeros between the samples, then filter with a gain of four (StyleGAN2's ``upfirdn``).

    Args:
        x: float [B, C, S, S].
        kernel: float [4, 4], symmetric.

    Returns:
        float [B, C, 2S, 2S].
    """
    count = x.shape[1]
    weight = (4 * kernel).to(x.dtype).expand(count, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=count)
