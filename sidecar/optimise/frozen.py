"""Convolutions whose weights do not change: their gradient needs no copy of what went in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input


class _Convolution(torch.autograd.Function):
    """Keeps the weights alone; PyTorch's own also keeps its input, in case the weights learn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        # x [B, C_in, H, W], weight [C_out, C_in / groups, k, k]; how: stride, padding, dilation, groups
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = x.shape, how
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # gradient [B, C_out, H', W']
        (weight,) = ctx.saved_tensors
        of_x = conv2d_input(ctx.shape, weight, gradient, *ctx.how)  # type: ignore[no-untyped-call]
        return of_x, None, None, None, None, None, None


class FrozenConv2d(nn.Conv2d):
    """A convolution through which gradients pass, but whose weights get none."""

    def forward(self, input: Tensor) -> Tensor:
        """float32 [B, C_in, H, W] to [B, C_out, H', W']."""
        found: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        return found


def freeze(network: nn.Module) -> None:
    """Let the convolutions of a network give no gradients to their weights; its modules and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            assert module.padding_mode == "zeros" and not isinstance(module.padding, str)
            module.__class__ = FrozenConv2d
