"""Perceptual distances in plain PyTorch: ST-LPIPS (Ghildyal and Liu, ECCV 2022), and LPIPS (Zhang et al., CVPR 2018).

ST-LPIPS is the shift-tolerant LPIPS. Its backbones are anti-aliased: max pooling at stride 1 is followed by a binomial
blur at stride 2, padded by reflection, and Alex's first convolution has stride 1. Call it ST-LPIPS wherever a number
is shown.

Both variants agree with the reference implementation, stlpips_pytorch 0.0.2, on unrelated, noisy and shifted images of
37 to 256 px: the largest difference was 1.2e-7, on distances up to 1.06. A test keeps some of those distances.

Raises ``ValueError`` for an unknown variant; loading raises what safetensors and ``load_state_dict`` raise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

Variant = Literal["vgg", "alex"]

# The ImageNet mean and standard deviation for images in [-1, 1], as LPIPS fixes them.
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)


class Blur(nn.Module):
    """A 3x3 binomial blur at stride 2, padded by two reflected pixels."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # x [B, C, H, W] -> [B, C, H // 2 + 1, W // 2 + 1] for even H and W
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.kernel, stride=2, groups=x.shape[1])


def _pool(size: int, channels: int) -> list[nn.Module]:
    return [nn.MaxPool2d(size, stride=1), Blur(channels)]


def _conv(channels_in: int, channels_out: int, size: int, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, size, padding=padding), nn.ReLU()]


def _alex() -> list[nn.Sequential]:
    first = [nn.Conv2d(3, 64, 11, padding=2), Blur(64), nn.ReLU()]
    return [
        nn.Sequential(*first),
        nn.Sequential(*_pool(3, 64), *_conv(64, 192, 5, 2)),
        nn.Sequential(*_pool(3, 192), *_conv(192, 384, 3, 1)),
        nn.Sequential(*_conv(384, 256, 3, 1)),
        nn.Sequential(*_conv(256, 256, 3, 1)),
    ]


def _vgg(*, blurred: bool = True) -> list[nn.Sequential]:
    stages: list[nn.Sequential] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        stage: list[nn.Module] = []
        if stages:
            stage += _pool(2, channels) if blurred else [nn.MaxPool2d(2)]
        for _ in range(depth):
            stage += _conv(channels, width, 3, 1)
            channels = width
        stages.append(nn.Sequential(*stage))
    return stages


class STLPIPS(nn.Module):
    """The distance d(a, b): 0 for equal images, about 0.5 for unrelated ones; differentiable in both.

    Args:
        variant: ``"vgg"``, the papers' loss, of 14.7 M parameters; or ``"alex"``, of 2.5 M, five times cheaper.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, variant: Variant) -> None:
        if variant not in get_args(Variant):
            raise ValueError(f"variant must be one of {get_args(Variant)}, not {variant!r}")
        super().__init__()
        self.variant = variant
        self.stages = nn.ModuleList(self._stages())
        widths = [[m.out_channels for m in s.modules() if isinstance(m, nn.Conv2d)][-1] for s in self.stages]
        self.heads = nn.ParameterList(torch.ones(width) for width in widths)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def _stages(self) -> list[nn.Sequential]:
        return _vgg() if self.variant == "vgg" else _alex()

    def features(self, x: Tensor) -> list[Tensor]:
        """Features whose squared differences add up to the distance; those of a target can be kept.

        Args:
            x: float [B, 3, H, W] in [-1, 1], RGB, H and W at least 32.

        Returns:
            Five maps, float [B, C_i, H_i, W_i]: normalised along C, then scaled by the roots of the learned weights.
        """
        assert x.ndim == 4
        assert x.shape[1] == 3
        assert min(x.shape[2:]) >= 32
        x = (x - self.mean) / self.std
        out = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            # The floor keeps the gradient finite where all features are 0.
            y = x.float()  # the stages may run in bfloat16
            unit = y * (y.square().sum(dim=1, keepdim=True) + 1e-20).rsqrt()
            out.append(unit * head.sqrt()[:, None, None])
        return out

    def forward(self, a: Tensor | list[Tensor], b: Tensor | list[Tensor]) -> Tensor:
        """Distance between images.

        Args:
            a: float [B, 3, H, W] in [-1, 1], RGB, or their :meth:`features`.
            b: the same, of the same size; a batch of 1 is compared with every image of ``a``.

        Returns:
            float [B], at least 0.
        """
        fa = self.features(a) if isinstance(a, Tensor) else a
        fb = self.features(b) if isinstance(b, Tensor) else b
        return torch.stack([(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(fa, fb, strict=True)]).sum(
            dim=0
        )


class LPIPS(STLPIPS):
    """Standard LPIPS, version 0.1, on VGG16: the same formula, on a backbone that pools without a blur."""

    def __init__(self) -> None:
        super().__init__("vgg")

    def _stages(self) -> list[nn.Sequential]:
        return _vgg(blurred=False)


def load_stlpips(path: Path, *, variant: Variant) -> STLPIPS:
    """The network with the weights of the safetensors file ``path``, frozen and in evaluation mode."""
    network = STLPIPS(variant)
    network.load_state_dict(load_file(path))
    return network
