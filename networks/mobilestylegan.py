"""MobileStyleGAN synthesis (Belousov, arXiv 2104.04767), cut into a coarse and a fine half.

A constant 4x4 map goes through one convolution and seven layers. Each layer doubles the size by an inverse Haar wavelet
transform, then applies two depthwise-separable convolutions whose inputs are scaled by a style. Of the 16 styles, 0
belongs to the first convolution, ``1 + 2i`` to the up-sampling and the first convolution of layer i, ``2 + 2i`` to its
second convolution, and 15 to the image head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM
from networks.synthesis import Synthesis, check_cut
from protocol.cuts import W_PLUS

F_CHANNELS = 512
CHANNELS = (512, 512, 512, 512, 256, 128, 64)  # of layers at 8, 16, ... 512
LATE = 4  # the first layer after the features at 64 px
LATE_STYLES = 2 * (len(CHANNELS) - LATE) + 1
WHOLE = slice(None)
CPU_STRIPS = (1, 4, 16)  # of the layers at 128, 256 and 512


class ModulatedConv(nn.Module):
    """Scale the input by a style; then depthwise 3x3, pointwise 1x1, fixed noise, bias, leaky ReLU 0.2."""

    noise: Tensor

    def __init__(self, channels_in: int, channels_out: int, size: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(STYLE_DIM, channels_in)
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor, rows: slice = WHOLE) -> Tensor:
        # x [B, C_in, S, S] or some of its rows, w [B, 512] -> [B, C_out, S, S] or the same rows
        dtype = self.pointwise.weight.dtype
        x = self.pointwise(self.depthwise(x.to(dtype) * self.modulation(w).to(dtype)[:, :, None, None]))
        # In place: its gradient then needs its result alone, which the next layer keeps anyway.
        return F.leaky_relu(x + self.noise[:, :, rows].to(dtype), 0.2, inplace=True)


class InputConv(nn.Module):
    """The constant 4x4 map, and a dense 3x3 convolution of it whose input is scaled by a style."""

    noise: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(1, F_CHANNELS, 4, 4))
        self.modulation = nn.Linear(STYLE_DIM, F_CHANNELS)
        self.conv = nn.Conv2d(F_CHANNELS, F_CHANNELS, 3, padding=1)
        self.register_buffer("noise", torch.zeros(1, 1, 4, 4))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # x [B, 512, 4, 4], the constant map; w [B, 512] -> [B, 512, 4, 4]
        x = self.conv(x * self.modulation(w)[:, :, None, None])
        return F.leaky_relu(x + self.noise, 0.2)


class InverseHaar(nn.Module):
    """Four sub-bands, interleaved per output channel, to a map of twice the size.

    It is one grouped transposed convolution, the fastest of the equivalent forms in ONNX Runtime.
    """

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        low, high = torch.tensor([0.5, 0.5]), torch.tensor([1.0, -1.0])
        bands = [torch.outer(low, low * 2), torch.outer(high, low), torch.outer(low, high), torch.outer(high, high) / 2]
        self.register_buffer("weight", torch.stack(bands).repeat(channels, 1, 1)[:, None], persistent=False)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        # x [B, 4C, S, S], channels (c, band) -> [B, C, 2S, 2S]
        return F.conv_transpose2d(x, self.weight, stride=2, groups=self.channels)


class Layer(nn.Module):
    """Doubles the size. ``enter`` up-samples and applies the first convolution, ``leave`` the second."""

    def __init__(self, channels_in: int, channels_out: int, size: int) -> None:
        super().__init__()
        self.up_modulation = nn.Linear(STYLE_DIM, channels_in)
        self.up = InverseHaar(channels_in // 4)
        self.conv1 = ModulatedConv(channels_in // 4, channels_out, size)
        self.conv2 = ModulatedConv(channels_out, channels_out, size)

    def enter(self, x: Tensor, w: Tensor, rows: slice = WHOLE) -> Tensor:
        # x [B, C_in, S/2, S/2], w [B, 512] -> [B, C_out, S, S]
        dtype = self.up.weight.dtype
        y: Tensor = self.conv1(self.up(x.to(dtype) * self.up_modulation(w).to(dtype)[:, :, None, None]), w, rows)
        return y

    def leave(self, x: Tensor, w: Tensor, rows: slice = WHOLE) -> Tensor:
        # x [B, C_out, S, S], w [B, 512] -> [B, C_out, S, S]
        y: Tensor = self.conv2(x, w, rows)
        return y

    def strips(self, x: Tensor, w: tuple[Tensor, Tensor], count: int) -> Iterator[Tensor]:
        """``leave(enter(x))``, some rows at a time, so that a processor's cache holds the maps.

        Two rows more on each side are computed and cut off: each convolution sees one beyond.

        Args:
            x: float [B, C_in, S/2, S/2].
            w: the two styles, float32 [B, 512] each.
            count: number of strips; a divisor of S/2.

        Yields:
            float [B, C_out, S/count, S], from the top.
        """
        side = 2 * x.shape[2]
        height = side // count
        for top in range(0, side, height):
            rows = slice(max(top - 2, 0), min(top + height + 2, side))
            y = self.enter(x[:, :, rows.start // 2 : rows.stop // 2], w[0], rows)
            yield self.leave(y, w[1], rows)[:, :, top - rows.start : top - rows.start + height]


def joined(strips: Iterable[Tensor]) -> Tensor:
    """Strips of rows, one below the other: [B, C, S/n, S] each -> [B, C, S, S]."""
    first, *rest = strips
    return torch.cat([first, *rest], dim=2) if rest else first


class ImageHead(nn.Module):
    """From features to RGB at twice the size; the last inverse wavelet transform is folded into the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(STYLE_DIM, channels)
        self.conv = nn.Conv2d(channels, 12, 1)
        self.shuffle: nn.Module = nn.PixelShuffle(2)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # x [B, C, S, S], w [B, 512] -> [B, 3, 2S, 2S]
        image: Tensor = self.shuffle(self.conv(x * self.modulation(w)[:, :, None, None]))
        return image


class Shuffle(nn.Module):
    """A pixel shuffle to RGB as a transposed convolution, which is faster in ONNX Runtime and slower in PyTorch."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(12).view(12, 3, 2, 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # x [B, 12, S, S] -> [B, 3, 2S, 2S]
        return F.conv_transpose2d(x, self.weight, stride=2)


class MobileStyleGAN(Synthesis):
    """The synthesis network G of a 1024 px MobileStyleGAN, with the F/W+ cut at 8x8 or 16x16.

    The cut lies after the first convolution of the layer of that size (BDInvert, section 3.1).

    """

    size = 1024
    num_styles = 16

    def __init__(self) -> None:
        super().__init__()
        self.input = InputConv()
        inputs = (F_CHANNELS, *CHANNELS[:-1])
        self.layers = nn.ModuleList(Layer(i, o, 8 << n) for n, (i, o) in enumerate(zip(inputs, CHANNELS, strict=True)))
        self.to_image = ImageHead(CHANNELS[-1])
        self._strips = tuple(1 for _ in CHANNELS[LATE:])

    def _layers(self, first: int = 0) -> list[Layer]:
        return cast("list[Layer]", list(self.layers)[first:])

    @staticmethod
    def _index(cut: int) -> int:
        # Of the layer at the cut: 0 for 8x8, -1 for W+.
        check_cut(cut)
        return cut.bit_length() - 4

    def coarse_styles(self, cut: int) -> int:
        """0 for W+, 2 for the cut at 8x8, 4 for 16x16."""
        return 2 * self._index(cut) + 2

    def f_channels(self, cut: int) -> int:
        """512 for every cut."""
        check_cut(cut)
        return F_CHANNELS

    def forward(self, w_plus: Tensor) -> Tensor:
        """Render images, as :meth:`Synthesis.forward`."""
        self.check_w_plus(w_plus)
        return self.fine(self.coarse(w_plus[:, :0], cut=W_PLUS), w_plus)

    def coarse(self, w: Tensor, *, cut: int) -> Tensor:
        """The coarse half, as :meth:`Synthesis.coarse`."""
        self.check_coarse(w, cut)
        constant = self.input.constant.expand(w.shape[0], -1, -1, -1)
        if cut == W_PLUS:
            return constant
        x: Tensor = self.input(constant, w[:, 0])
        last = self._index(cut)
        for i, layer in enumerate(self._layers()[:last]):
            x = layer.leave(layer.enter(x, w[:, 1 + 2 * i]), w[:, 2 + 2 * i])
        return self._layers()[last].enter(x, w[:, 1 + 2 * last]).float()

    def fine(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """The fine half, as :meth:`Synthesis.fine`."""
        return self.finish(self.features(f, w_m_plus), w_m_plus[:, -LATE_STYLES:])

    def features(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """The fine half's first layers, up to the features at 64 px from which the short head paints.

        Args:
            f: float32 [B, 512, cut, cut].
            w_m_plus: float32 [B, n, 512].

        Returns:
            float [B, 512, 64, 64].
        """
        cut = self.check_fine(f, w_m_plus)
        w = iter(w_m_plus.unbind(dim=1))
        index = self._index(cut)
        x = self.input(f, next(w)) if cut == W_PLUS else self._layers()[index].leave(f, next(w))
        for layer in self._layers(index + 1)[: LATE - index - 1]:
            x = layer.leave(layer.enter(x, next(w)), next(w))
        return x

    def finish(self, features: Tensor, late: Tensor) -> Tensor:
        """The layers after :meth:`features`: [B, 512, 64, 64] and late styles [B, 7, 512] -> as :meth:`fine`."""
        w = late.unbind(dim=1)
        parts: Iterable[Tensor] = (features,)
        for i, (layer, count) in enumerate(zip(self._layers(LATE), self._strips, strict=True)):
            parts = layer.strips(joined(parts), (w[2 * i], w[2 * i + 1]), count)
        return joined(self.to_image(part.float(), w[-1]) for part in parts)

    def modulations(self, w_m_plus: Tensor) -> list[Tensor]:
        """The scales of the fine half's inputs, as :meth:`Synthesis.modulations`."""
        cut = self.cut_of(w_m_plus.shape[1])
        index = self._index(cut)
        first = self.input if cut == W_PLUS else self._layers()[index].conv2
        users: list[tuple[nn.Linear, ...]] = [(first.modulation,)]
        for layer in self._layers(index + 1):
            users += [(layer.up_modulation, layer.conv1.modulation), (layer.conv2.modulation,)]
        users.append((self.to_image.modulation,))
        styles = w_m_plus.unbind(dim=1)
        return [torch.cat([use(w) for use in uses], dim=1) for uses, w in zip(users, styles, strict=True)]

    def use_cache(self) -> None:
        """Compute the last layers in strips that fit a processor's cache, for ONNX Runtime; the image is the same."""
        self._strips = CPU_STRIPS
        self.to_image.shuffle = Shuffle()

    def lower(self, dtype: torch.dtype, *, blocks: int = 4) -> None:
        """Compute the last layers in half precision, as :meth:`Synthesis.lower`; the head stays float32."""
        for layer in self._layers()[-blocks:]:
            layer.up.to(dtype)
            for conv in (layer.conv1, layer.conv2):
                conv.depthwise.to(dtype)
                conv.pointwise.to(dtype)
