"""StyleGAN synthesis (Karras et al., arXiv 1812.04948), cut into a coarse and a fine half.

There are two layers per resolution. Each is a convolution, noise, bias, leaky ReLU 0.2, instance normalisation and a
style (AdaIN, eq. 1); the very first has a constant in place of the convolution. Styles 2i and 2i + 1 belong to the
layers at size ``4 << i``. The cut lies after the first layer of its resolution.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM
from networks.resampling import binomial, blur
from networks.synthesis import Synthesis, check_cut
from protocol.cuts import W_PLUS

FILTER = (1.0, 2.0, 1.0)


class Epilogue(nn.Module):
    """The rest of a layer, after its convolution: noise, bias, leaky ReLU, instance normalisation, style."""

    noise: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.zeros(size, size))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.style = nn.Linear(STYLE_DIM, 2 * channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # x [B, C, S, S], w float32 [B, 512] -> [B, C, S, S]
        y = x + self.noise_strength[:, None, None] * self.noise + self.bias[:, None, None]
        y = F.leaky_relu(y, 0.2)
        y = y - y.mean(dim=(2, 3), keepdim=True)
        y = y * (y.square().mean(dim=(2, 3), keepdim=True) + 1e-8).rsqrt()
        scale, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        styled: Tensor = y * (scale + 1) + shift
        return styled


class Layer(nn.Module):
    """A convolution, in half precision if lowered. The rest stays float32, because it sums over a million pixels."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    gain: float = 1.0  # factor that :meth:`lower` took out of the weights

    def scaled(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        # x [B, C, S, S] -> input of the convolution, and the factor [B, 1, 1, 1] for its output
        dtype = self.conv.weight.dtype
        if dtype == torch.float32:
            return x, 1.0
        largest = x.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-8)
        return (x / largest).to(dtype), largest * self.gain

    @torch.no_grad()
    def lower(self, dtype: torch.dtype) -> None:
        """Convolve in half precision, with weights and maps scaled so that no sum of products overflows."""
        factor = float(self.conv.weight.abs().amax()) * (9 * self.conv.in_channels) ** 0.5
        self.gain *= factor
        self.conv.weight = nn.Parameter((self.conv.weight / factor).to(dtype), requires_grad=False)


class Conv(Layer):
    """A layer with a 3x3 convolution."""

    def __init__(self, inner: int, outer: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
        self.epilogue = Epilogue(outer, size)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # x [B, C_in, S, S], w [B, 512] -> [B, C_out, S, S]
        seen, factor = self.scaled(x)
        y: Tensor = self.epilogue(self.conv(seen).float() * factor, w)
        return y


class UpConv(Layer):
    """A layer that doubles the size by a transposed 4x4 convolution and a blur.

    Published networks repeat every pixel and then convolve by 3x3. That equals a transposed convolution with the sum of
    the kernel's four shifts (:func:`stretched`), which costs less than half as much.
    """

    kernel: Tensor

    def __init__(self, inner: int, outer: int, size: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, bias=False)
        self.epilogue = Epilogue(outer, size)
        self.register_buffer("kernel", binomial(*FILTER), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # x [B, C_in, S, S], w [B, 512] -> [B, C_out, 2S, 2S]
        seen, factor = self.scaled(x)
        y: Tensor = self.epilogue(blur(self.conv(seen), self.kernel).float() * factor, w)
        return y


def stretched(weight: Tensor, *, fused: bool) -> Tensor:
    """The kernel of :class:`UpConv` from a published 3x3 kernel.

    Args:
        weight: float [out, in, 3, 3].
        fused: whether the published layer is a transposed convolution, as from 128 px on. Otherwise it convolves the
            repeated map, and the kernel is mirrored.

    Returns:
        float [in, out, 4, 4].
    """
    kernel = weight.transpose(0, 1) if fused else weight.transpose(0, 1).flip(2, 3)
    padded = F.pad(kernel, (1, 1, 1, 1))
    return padded[:, :, 1:, 1:] + padded[:, :, :-1, 1:] + padded[:, :, 1:, :-1] + padded[:, :, :-1, :-1]


class Block(nn.Module):
    """The two layers of one size above 4x4."""

    def __init__(self, inner: int, outer: int, size: int) -> None:
        super().__init__()
        self.conv1 = UpConv(inner, outer, size)
        self.conv2 = Conv(outer, outer, size)


class StyleGAN(Synthesis):
    """The synthesis network G of a StyleGAN, with the F/W+ cut at 8x8 or 16x16."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        """channels: of the maps at 4x4, 8x8, ... size x size; at least up to 32x32."""
        super().__init__()
        if len(channels) < 4:
            raise ValueError("a StyleGAN smaller than 32 px has no cut at 16x16")
        self.channels = channels
        self.size, self.num_styles = 4 << (len(channels) - 1), 2 * len(channels)
        self.constant = nn.Parameter(torch.ones(1, channels[0], 4, 4))
        self.input = Epilogue(channels[0], 4)
        self.conv = Conv(channels[0], channels[0], 4)
        self.blocks = nn.ModuleList(Block(i, o, 8 << n) for n, (i, o) in enumerate(pairwise(channels)))
        self.to_rgb = nn.Conv2d(channels[-1], 3, 1)

    def _blocks(self, first: int = 0) -> list[Block]:
        return cast("list[Block]", list(self.blocks)[first:])

    @staticmethod
    def _index(cut: int) -> int:
        # Of the block at the cut: 0 for 8x8, -1 for W+.
        check_cut(cut)
        return cut.bit_length() - 4

    def coarse_styles(self, cut: int) -> int:
        """0 for W+, 3 for the cut at 8x8, 5 for 16x16."""
        return 0 if cut == W_PLUS else 2 * self._index(cut) + 3

    def f_channels(self, cut: int) -> int:
        """Channels of ``f``, 512 in the published configurations."""
        return self.channels[self._index(cut) + 1]

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
        x: Tensor = self.conv(self.input(constant, styles[0]), styles[1])
        for i, block in enumerate(self._blocks()[:last]):
            x = block.conv2(block.conv1(x, styles[2 + 2 * i]), styles[3 + 2 * i])
        f: Tensor = self._blocks()[last].conv1(x, styles[-1])
        return f

    def fine(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """The fine half, as :meth:`Synthesis.fine`."""
        cut = self.check_fine(f, w_m_plus)
        index = self._index(cut)
        w = w_m_plus.unbind(dim=1)
        x: Tensor = self.conv(self.input(f, w[0]), w[1]) if cut == W_PLUS else self._blocks()[index].conv2(f, w[0])
        first = 2 if cut == W_PLUS else 1
        for i, block in enumerate(self._blocks(index + 1)):
            x = block.conv2(block.conv1(x, w[first + 2 * i]), w[first + 1 + 2 * i])
        image: Tensor = self.to_rgb(x)
        return image

    def modulations(self, w_m_plus: Tensor) -> list[Tensor]:
        """Scales and shifts of the fine half, as :meth:`Synthesis.modulations`."""
        cut = self.cut_of(w_m_plus.shape[1])
        index = self._index(cut)
        own = [self.input.style, self.conv.epilogue.style]
        users = own if cut == W_PLUS else [self._blocks()[index].conv2.epilogue.style]
        for block in self._blocks(index + 1):
            users += [block.conv1.epilogue.style, block.conv2.epilogue.style]
        return [use(w) for use, w in zip(users, w_m_plus.unbind(dim=1), strict=True)]

    def lower(self, dtype: torch.dtype, *, blocks: int = 4) -> None:
        """Convolve the last blocks in half precision, as :meth:`Synthesis.lower`; normalisation stays float32."""
        for block in self._blocks()[-blocks:]:
            block.conv1.lower(dtype)
            block.conv2.lower(dtype)
