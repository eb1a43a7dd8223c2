"""Faster forms of the networks for a GPU, with the same results.

Measured on an H100: depthwise convolutions as plain ones, compiled; the inverse Haar transform as sums and a pixel
shuffle, ST-LPIPS' blurs as slices. Shapes are fixed, so that everything is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.training.looks.step import Step
from networks.mobilestylegan import InverseHaar
from networks.perceptual import STLPIPS, Blur

LAST = 5  # layers of the generator, those from 32 px on, that compute in bfloat16


class SummedHaar(nn.Module):
    """:class:`networks.mobilestylegan.InverseHaar` as sums."""

    weight: Tensor

    def __init__(self, like: InverseHaar) -> None:
        super().__init__()
        self.register_buffer("weight", like.weight, persistent=False)  # gives the layers their dtype

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # x [B, 4C, S, S], channels (c, band) -> [B, C, 2S, 2S]
        b, c, h, w = x.shape
        ll, hl, lh, hh = (0.5 * x).reshape(b, c // 4, 4, h, w).unbind(2)
        p, q, r, s = ll + hl, ll - hl, lh + hh, lh - hh
        return F.pixel_shuffle(torch.stack([p + r, p - r, q + s, q - s], 2).reshape(b, c, h, w), 2)


class SlicedBlur(nn.Module):
    """:class:`networks.perceptual.Blur` as slices."""

    def __init__(self, like: Blur) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # x [B, C, H, W] -> [B, C, H // 2 + 1, W // 2 + 1]
        x = F.pad(x, (2, 2, 2, 2), mode="reflect")
        h, w = x.shape[2] - 2, x.shape[3] - 2
        x = 0.25 * (x[:, :, 0:h:2] + x[:, :, 2 : h + 2 : 2]) + 0.5 * x[:, :, 1 : h + 1 : 2]
        return 0.25 * (x[..., 0:w:2] + x[..., 2 : w + 2 : 2]) + 0.5 * x[..., 1 : w + 1 : 2]


def swapped(network: nn.Module, old: type[nn.Module], new: Callable[[Any], nn.Module]) -> None:
    """Replace all modules of one class by modules of another."""
    for name, child in network.named_children():
        if isinstance(child, old):
            setattr(network, name, new(child))
        else:
            swapped(child, old, new)


def on_gpu(step: Step, *networks: STLPIPS) -> None:
    """Give a step's networks their fast forms.

    Args:
        step: whose whole fine half computes its last layers in bfloat16, and is compiled.
        networks: the first of which, the costliest, is compiled.
    """
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    swapped(step.synthesis, InverseHaar, SummedHaar)
    step.synthesis.lower(torch.bfloat16, blocks=LAST)
    for network in networks:
        swapped(network, Blur, SlicedBlur)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    networks[0].compile(dynamic=False)
    for trained in (step.looks, step.head):
        trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step.compile()
