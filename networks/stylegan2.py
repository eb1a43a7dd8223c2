"""StyleGAN2 synthesis (Karras et al., arXiv 1912.04958), cut into a coarse and a fine half.

Modulation scales a convolution's input and demodulation its output. That equals the scaled weights of the paper (eqs. 1
and 3), works on batches, and exports to a static graph.

Style 0 belongs to the convolution at 4x4, ``2i - 1`` and ``2i`` to those of the block at ``4 << i``. A to-RGB layer
takes the style after its block's last convolution. In a network with RGB skips the cut lies after the first convolution
of its block, and the image starts there, without the sum from before. A residual block has two branches, so there the
cut lies after the block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM
from networks.resampling import binomial, blur, upsample
from networks.synthesis import Synthesis, check_cut
from protocol.cuts import W_PLUS

Architecture = Literal["skip", "resnet"]
GAIN = 2**0.5  # of leaky ReLU 0.2; keeps the variance
RESIDUAL = 0.5**0.5  # of both branches of a residual block
FILTER = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What determines the layers of a StyleGAN2.

    Attributes:
        channels: of the maps at 4x4, 8x8, ... size x size; at least up to 32x32.
        architecture: ``skip`` sums images of every resolution; ``resnet`` has residual blocks and one image at the end.
        clamp: bound on every layer's output, or None; NVlabs' networks for half precision have 256.
    """

    channels: tuple[int, ...]
    architecture: Architecture = "skip"
    clamp: float | None = None

    def __post_init__(self) -> None:
        if len(self.channels) < 4:
            raise ValueError("a StyleGAN2 smaller than 32 px has no cut at 16x16")

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return int(4 << (len(self.channels) - 1))


def published(size: int, *, base: int = 32768, most: int = 512) -> tuple[int, ...]:
    """Channels of the published configurations: base 32768 is config F, 16384 config E."""
    return tuple(min(base // (4 << i), most) for i in range(size.bit_length() - 2))


class ModulatedConv(nn.Module):
    """Modulated convolution with noise, bias and leaky ReLU; ``up`` doubles the size."""

    noise: Tensor
    kernel: Tensor

    def __init__(self, inner: int, outer: int, size: int, *, clamp: float | None, up: bool = False) -> None:
        super().__init__()
        self.up, self.clamp = up, clamp
        self.modulation = nn.Linear(STYLE_DIM, inner)
        self.weight = nn.Parameter(torch.randn(outer, inner, 3, 3) / (9 * inner) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outer))
        self.register_buffer("noise", torch.zeros(size, size))
        self.register_buffer("kernel", binomial(*FILTER), persistent=False)

    def forward(self, x: Tensor, w: Tensor, *, gain: float = 1.0) -> Tensor:
        # x [B, C_in, S, S], w float32 [B, 512] -> [B, C_out, S, S], with up at 2S
        styles = self.modulation(w)
        if self.weight.dtype != torch.float32:
            # Demodulation undoes any scale; this one prevents overflow in half precision (StyleGAN2-ADA, app. C).
            styles = styles / styles.abs().amax(dim=1, keepdim=True)
        energy = self.weight.float().square().sum(dim=(2, 3))
        demodulation = (styles.square() @ energy.T + 1e-8).rsqrt()
        x = x.to(self.weight.dtype)
        x = x * styles.to(x.dtype)[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            x = blur(x, self.kernel, gain=4)
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = (
            x * demodulation.to(x.dtype)[:, :, None, None]
            + self.noise.to(x.dtype)
            + self.bias.to(x.dtype)[:, None, None]
        )
        return clamped(F.leaky_relu(x, 0.2) * (GAIN * gain), self.clamp, gain)

    @torch.no_grad()
    def lower(self, dtype: torch.dtype) -> None:
        """Compute in half precision, with each filter scaled to 1 / sqrt(fan-in) so that no sum overflows."""
        largest = self.weight.abs().amax(dim=(1, 2, 3), keepdim=True)
        fan_in = self.weight[0].numel()
        self.weight = nn.Parameter((self.weight / (largest * fan_in**0.5)).to(dtype), requires_grad=False)


class ToRGB(nn.Module):
    """From features to an image: a modulated 1x1 convolution without demodulation."""

    def __init__(self, channels: int, *, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.modulation = nn.Linear(STYLE_DIM, channels)
        self.conv = nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # x [B, C, S, S], w float32 [B, 512] -> float32 [B, 3, S, S]
        styles = self.modulation(w).to(x.dtype)
        image = F.conv2d(x * styles[:, :, None, None], self.conv.weight.to(x.dtype))
        return clamped(image.float() + cast("Tensor", self.conv.bias)[:, None, None], self.clamp)


class Block(nn.Module):
    """The layers of one size above 4x4."""

    kernel: Tensor

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        inner, outer = shape.channels[index - 1 : index + 1]
        side = 4 << index
        self.conv1 = ModulatedConv(inner, outer, side, clamp=shape.clamp, up=True)
        self.conv2 = ModulatedConv(outer, outer, side, clamp=shape.clamp)
        resnet = shape.architecture == "resnet"
        self.skip = nn.Conv2d(inner, outer, 1, bias=False) if resnet else None
        self.to_rgb = None if resnet and side != shape.size else ToRGB(outer, clamp=shape.clamp)
        self.register_buffer("kernel", binomial(*FILTER), persistent=False)

    def residual(self, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        # x [B, C_in, S, S], w1 and w2 [B, 512] -> [B, C_out, 2S, 2S]
        assert self.skip is not None
        dtype = self.conv1.weight.dtype
        across = upsample(F.conv2d(x.to(dtype), self.skip.weight.to(dtype)), self.kernel) * RESIDUAL
        through: Tensor = self.conv2(self.conv1(x, w1), w2, gain=RESIDUAL)
        return across + through


def clamped(x: Tensor, bound: float | None, gain: float = 1.0) -> Tensor:
    """``x`` clamped to ``bound * gain``, or unchanged without a bound."""
    return x if bound is None else x.clamp(-bound * gain, bound * gain)


class StyleGAN2(Synthesis):
    """The synthesis network G of a StyleGAN2, with the F/W+ cut at 8x8 or 16x16."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.size, self.num_styles = shape, shape.size, 2 * len(shape.channels)
        self.constant = nn.Parameter(torch.randn(1, shape.channels[0], 4, 4))
        self.input = ModulatedConv(shape.channels[0], shape.channels[0], 4, clamp=shape.clamp)
        self.to_rgb = ToRGB(shape.channels[0], clamp=shape.clamp) if shape.architecture == "skip" else None
        self.blocks = nn.ModuleList(Block(shape, i) for i in range(1, len(shape.channels)))

    def _blocks(self, first: int = 0) -> list[Block]:
        return cast("list[Block]", list(self.blocks)[first:])

    @staticmethod
    def _index(cut: int) -> int:
        # Of the block at the cut: 0 for 8x8, -1 for W+.
        check_cut(cut)
        return cut.bit_length() - 4

    def coarse_styles(self, cut: int) -> int:
        """0 for W+, 2 for the cut at 8x8, 4 for 16x16; with residual blocks 0, 3 and 5."""
        if cut == W_PLUS:
            return 0
        return 2 * self._index(cut) + (2 if self.shape.architecture == "skip" else 3)

    def f_channels(self, cut: int) -> int:
        """Channels of ``f``, 512 in the published configurations."""
        return self.shape.channels[self._index(cut) + 1]

    def forward(self, w_plus: Tensor) -> Tensor:
        """Render images, as :meth:`Synthesis.forward`."""
        self.check_w_plus(w_plus)
        return self.fine(self.coarse(w_plus[:, :0], cut=W_PLUS), w_plus)

    def coarse(self, w: Tensor, *, cut: int) -> Tensor:
        """The coarse half, as :meth:`Synthesis.coarse`."""
        self.check_coarse(w, cut)
        last = self._index(cut)
        styles = w.unbind(dim=1)
        constant = self.constant.expand(w.shape[0], -1, -1, -1)
        if cut == W_PLUS:
            return constant
        x: Tensor = self.input(constant, styles[0])
        for i, block in enumerate(self._blocks()[:last]):
            x = self._through(block, x, styles[1 + 2 * i], styles[2 + 2 * i])
        block = self._blocks()[last]
        if self.shape.architecture == "resnet":
            return self._through(block, x, *styles[-2:]).float()
        first: Tensor = block.conv1(x, styles[-1])
        return first.float()

    def fine(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """The fine half, as :meth:`Synthesis.fine`."""
        cut = self.check_fine(f, w_m_plus)
        index = self._index(cut)
        w = w_m_plus.unbind(dim=1)
        if cut == W_PLUS:
            y: Tensor = self.input(f, w[0])
            return self._render(y, w[1:], self._blocks(), None if self.to_rgb is None else self.to_rgb(y, w[1]))
        block, rest = self._blocks()[index], self._blocks(index + 1)
        if self.shape.architecture == "resnet":
            return self._render(f, w, rest, None)
        assert block.to_rgb is not None
        x: Tensor = block.conv2(f, w[0])
        return self._render(x, w[1:], rest, block.to_rgb(x, w[1]))

    def _through(self, block: Block, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        if self.shape.architecture == "resnet":
            return block.residual(x, w1, w2)
        y: Tensor = block.conv2(block.conv1(x, w1), w2)
        return y

    def _render(self, x: Tensor, w: tuple[Tensor, ...], blocks: list[Block], image: Tensor | None) -> Tensor:
        # The last style of a block, that of its to-RGB layer, is also the first of the next block.
        for i, block in enumerate(blocks):
            x = self._through(block, x, w[2 * i], w[2 * i + 1])
            if block.to_rgb is not None:
                own = block.to_rgb(x, w[2 * i + 2])
                image = own if image is None else upsample(image, block.kernel) + own
        assert image is not None
        return image

    def modulations(self, w_m_plus: Tensor) -> list[Tensor]:
        """The scales of the fine half's inputs, as :meth:`Synthesis.modulations`."""
        cut = self.cut_of(w_m_plus.shape[1])
        index = self._index(cut)
        users: list[list[nn.Linear]] = [[] for _ in range(w_m_plus.shape[1])]
        skip = self.shape.architecture == "skip"
        if cut == W_PLUS:
            users[0].append(self.input.modulation)
            if self.to_rgb is not None:
                users[1].append(self.to_rgb.modulation)
        elif skip:
            first = self._blocks()[index]
            assert first.to_rgb is not None
            users[0].append(first.conv2.modulation)
            users[1].append(first.to_rgb.modulation)
        for i, block in enumerate(self._blocks(index + 1)):
            at = 2 * i + (1 if skip or cut == W_PLUS else 0)
            users[at].append(block.conv1.modulation)
            users[at + 1].append(block.conv2.modulation)
            if block.to_rgb is not None:
                users[at + 2].append(block.to_rgb.modulation)
        styles = w_m_plus.unbind(dim=1)
        return [torch.cat([use(w) for use in uses], dim=1) for uses, w in zip(users, styles, strict=True)]

    def lower(self, dtype: torch.dtype, *, blocks: int = 4) -> None:
        """Compute the last blocks in half precision, as :meth:`Synthesis.lower`."""
        for block in self._blocks()[-blocks:]:
            block.conv1.lower(dtype)
            block.conv2.lower(dtype)
