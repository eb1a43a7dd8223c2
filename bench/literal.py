"""The fine half of StyleGAN2 as the equations are written: weights modulated and demodulated per sample
(arXiv 1912.04958, eqs. 1 to 3), zeros inserted before every upsampling filter. The baseline of :mod:`bench.generators`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from networks.stylegan2 import GAIN, Block, ModulatedConv, StyleGAN2, ToRGB


def fine(network: StyleGAN2, f: Tensor, w_m_plus: Tensor) -> Tensor:
    """``StyleGAN2.fine`` with RGB skips: f [B, C, cut, cut], w_m_plus [B, n, 512] -> [B, 3, S, S]."""
    assert network.shape.architecture == "skip"
    first = f.shape[-1].bit_length() - 4
    blocks = cast("list[Block]", list(network.blocks))[first:]
    w = w_m_plus.unbind(dim=1)
    x = layer(blocks[0].conv2, f, w[0])
    image = to_rgb(blocks[0].to_rgb, x, w[1])
    for i, block in enumerate(blocks[1:]):
        x = layer(block.conv2, layer(block.conv1, x, w[2 * i + 1]), w[2 * i + 2])
        image = to_rgb(block.to_rgb, x, w[2 * i + 3]) + filtered(stuffed(image), block.kernel, before=2, after=1)
    return image


def layer(conv: ModulatedConv, x: Tensor, w: Tensor) -> Tensor:
    """A modulated layer: x [B, C, S, S], w [B, 512] -> [B, C', S, S], or 2S if it upsamples."""
    batch = x.shape[0]
    weight = conv.modulation(w)[:, None, :, None, None] * conv.weight
    weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    grouped = x.reshape(1, -1, *x.shape[2:])
    if conv.up:
        transposed = weight.transpose(1, 2).flatten(0, 1)
        y = F.conv_transpose2d(grouped, transposed, stride=2, groups=batch)
        y = filtered(y.reshape(batch, -1, *y.shape[2:]), conv.kernel, before=1, after=1)
    else:
        y = F.conv2d(grouped, weight.flatten(0, 1), padding=1, groups=batch).reshape(batch, -1, *x.shape[2:])
    y = F.leaky_relu(y + conv.noise + conv.bias[:, None, None], 0.2) * GAIN
    return y if conv.clamp is None else y.clamp(-conv.clamp, conv.clamp)


def to_rgb(rgb: ToRGB | None, x: Tensor, w: Tensor) -> Tensor:
    """The image of a block: x [B, C, S, S], w [B, 512] -> [B, 3, S, S]."""
    assert rgb is not None
    weight = rgb.modulation(w)[:, None, :, None, None] * rgb.conv.weight
    image = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), groups=x.shape[0])
    image = image.reshape(x.shape[0], 3, *x.shape[2:]) + cast("Tensor", rgb.conv.bias)[:, None, None]
    return image if rgb.clamp is None else image.clamp(-rgb.clamp, rgb.clamp)


def stuffed(x: Tensor) -> Tensor:
    """Insert zeros: [B, C, S, S] -> [B, C, 2S, 2S]."""
    y = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype, device=x.device)
    y[:, :, ::2, ::2] = x
    return y


def filtered(x: Tensor, kernel: Tensor, *, before: int, after: int) -> Tensor:
    """Pad x [B, C, S, S] with zeros and filter every channel, with a gain of four."""
    flat = F.pad(x, (before, after, before, after)).flatten(0, 1)[:, None]
    y = F.conv2d(flat, 4 * kernel[None, None])
    return y.reshape(*x.shape[:2], *y.shape[2:])
