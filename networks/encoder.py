"""The encoder E: image to f^o, the gradient-free estimate of the feature map (BDInvert, section 3.2).

It is fully convolutional, because the method depends on tolerance to shifts. The input is eight times as large as
``f``: 128 px for the cut at 16x16, 64 px for 8x8. There are two bodies:

- ``paper``: eleven convolutions and three poolings, as published.
- ``residual``: ours. A pixel unshuffle by four, then residual blocks, most of them at the size of ``f``. It needs a
  tenth of the arithmetic, so it trains on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM
from networks.synthesis import Synthesis
from protocol.cuts import CUTS, W_PLUS

BODIES = ("paper", "residual")
STRIDE = 8


class ConvUnit(nn.Sequential):
    """3x3 convolution, batch norm, leaky ReLU 0.2."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.LeakyReLU(0.2),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        # x [B, C, S, S] -> [B, C, S, S]
        return F.leaky_relu(x + self.second(self.first(x)), 0.2)


def paper_body(outer: int) -> nn.Sequential:
    """Three blocks of three convolutions and a pooling, at 128, 256 and 512 channels; then two to ``f``'s channels."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (128, 256, 512):
        for _ in range(3):
            layers.append(ConvUnit(channels, width))
            channels = width
        layers.append(nn.AvgPool2d(2))
    return nn.Sequential(*layers, ConvUnit(channels, outer), nn.Conv2d(outer, outer, 3, padding=1))


def residual_body(
    outer: int, *, widths: tuple[int, int] = (96, 256), blocks: tuple[int, int] = (1, 4)
) -> nn.Sequential:
    """Stages at 1/4 and 1/8 of the input's size, then a 1x1 convolution to ``f``'s channels."""
    return nn.Sequential(
        nn.PixelUnshuffle(4),
        ConvUnit(48, widths[0]),
        *(ResidualBlock(widths[0]) for _ in range(blocks[0])),
        nn.AvgPool2d(2),
        ConvUnit(widths[0], widths[1]),
        *(ResidualBlock(widths[1]) for _ in range(blocks[1])),
        nn.Conv2d(widths[1], outer, 1),
    )


class Constant(nn.Module):
    """E for W+: f is the generator's constant, float32 [1, C, 4, 4], whatever the image."""

    f: Tensor

    def __init__(self, f: Tensor) -> None:
        super().__init__()
        assert f.ndim == 4 and f.shape[0] == 1 and f.shape[2:] == (W_PLUS, W_PLUS)
        self.cut = W_PLUS
        self.register_buffer("f", f.detach().clone())

    @classmethod
    def of(cls, synthesis: Synthesis) -> Constant:
        """The encoder for W+ of a generator."""
        return cls(synthesis.coarse(torch.zeros(1, 0, STYLE_DIM), cut=W_PLUS))

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, ...] -> float32 [B, C, 4, 4]."""
        return self.f.expand(image.shape[0], -1, -1, -1)


class Encoder(nn.Module):
    """E(I) = f^o. The body predicts f normalised per channel; ``f_mean`` and ``f_std``, float32 [C], undo that."""

    f_mean: Tensor
    f_std: Tensor

    def __init__(self, *, body: str = "residual", cut: int = 16, channels: int = 512) -> None:
        super().__init__()
        if body not in BODIES:
            raise ValueError(f"body must be one of {BODIES}, not {body!r}")
        if cut not in CUTS:
            raise ValueError(f"cut must be one of {CUTS}, not {cut}")
        self.body_name = body
        self.cut, self.channels = cut, channels
        self.body = paper_body(channels) if body == "paper" else residual_body(channels)
        self.register_buffer("f_mean", torch.zeros(channels))
        self.register_buffer("f_std", torch.ones(channels))

    @property
    def input_size(self) -> int:
        """Side of the input image in pixels: 8 times the cut."""
        return STRIDE * self.cut

    def forward(self, image: Tensor) -> Tensor:
        """Estimate the feature map of an image.

        Args:
            image: float32 [B, 3, 8 * cut, 8 * cut], RGB in [-1, 1] (the paper's I, area-resized).

        Returns:
            f^o: float32 [B, channels, cut, cut].
        """
        assert image.ndim == 4 and image.shape[1:] == (3, self.input_size, self.input_size)
        return self.denormalise(self.body(image))

    def normalise(self, f: Tensor) -> Tensor:
        """f [B, channels, S, S] to zero mean and unit variance per channel."""
        return (f - self.f_mean[:, None, None]) / self.f_std[:, None, None]

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of ``normalise``."""
        return x * self.f_std[:, None, None] + self.f_mean[:, None, None]
