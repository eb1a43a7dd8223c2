"""Photo to F/W+ in two looks, without a gradient.

The *first look* gives a rough code. The short head (:mod:`networks.short_head`) paints it at 256 px. The *second look*
sees the photo, what is still wrong, and ``f`` so far, and corrects both parts of the code. The *coarse look* sees the
aligned face and gives the coarse styles ``w_1..M-1`` that the face would have: with them an edit can move ``f``, too.

An edit by ``d`` moves ``w_m_plus`` by ``d`` and ``f`` by ``T(G_coarse(w_c + d) - G_coarse(w_c))``, with ``w_c`` the
coarse styles and T the similarity transform from the aligned face to its place in the photo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.detail import moments
from networks.mapping import STYLE_DIM
from networks.similarity import inverse, resample

PHOTO = 256  # side of the photo that the looks see
FACE = 128  # side of the aligned face that the coarse look sees


class ConvNorm(nn.Sequential):
    """3x3 convolution and batch norm, which folds into it at export."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )


class Squeeze(nn.Module):
    """Scales channels by factors computed from the whole map (squeeze-and-excitation, Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 8, 1)
        self.up = nn.Conv2d(channels // 8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # x [B, C, S, S] -> the same
        gate = self.up(F.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * (2 * torch.sigmoid(gate))


class Block(nn.Module):
    """Two 3x3 convolutions around a skip."""

    def __init__(self, channels: int, *, squeeze: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels)
        self.conv2 = ConvNorm(channels, channels)
        self.squeeze = Squeeze(channels) if squeeze else nn.Identity()
        norm = self.conv2[1]
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.constant_(norm.weight, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        # x [B, C, S, S] -> the same
        return F.leaky_relu(x + self.squeeze(self.conv2(F.leaky_relu(self.conv1(x), 0.2))), 0.2)


def stage(channels_in: int, channels_out: int, blocks: int, *, stride: int = 2, squeeze: bool = True) -> nn.Sequential:
    """A convolution that changes the size, then blocks."""
    return nn.Sequential(
        ConvNorm(channels_in, channels_out, stride),
        nn.LeakyReLU(0.2),
        *(Block(channels_out, squeeze=squeeze) for _ in range(blocks)),
    )


@dataclass(frozen=True)
class LookShape:
    """The size of a look: channels and blocks at 64, 32 and 16 px."""

    widths: tuple[int, int, int]
    blocks: tuple[int, int, int]


FIRST = LookShape((64, 128, 256), (1, 2, 3))
SECOND = LookShape((96, 192, 320), (2, 3, 4))


class Look(nn.Module):
    """From pixels to a change of the code.

    Args:
        seen: number of input channels.
        shape: the size of the network.
        cut: side of f.
        styles: number of styles in ``w_m_plus``.
        channels: channels of f.
        reads_f: whether it also reads the f so far.
    """

    def __init__(
        self, *, seen: int, shape: LookShape, cut: int, styles: int, channels: int = 512, reads_f: bool = False
    ) -> None:
        super().__init__()
        a, b, c = shape.widths
        self.cut, self.styles = cut, styles
        self.at64 = stage(seen, a, shape.blocks[0], stride=1, squeeze=False)
        self.at32 = stage(a, b, shape.blocks[1])
        self.to16 = ConvNorm(b, c, 2)
        self.skip = nn.Conv2d(4 * b, c, 1, bias=False)
        self.read_f = nn.Conv2d(channels, c, 1, bias=False) if reads_f else None
        self.at16 = nn.Sequential(*(Block(c, squeeze=True) for _ in range(shape.blocks[2])))
        self.f = nn.Sequential(nn.Conv2d(c, c, 1), nn.LeakyReLU(0.2), nn.Conv2d(c, channels, 1))
        self.at4 = nn.Sequential(ConvNorm(c, c, 2), nn.LeakyReLU(0.2), ConvNorm(c, c, 2), nn.LeakyReLU(0.2))
        pooled = 2 * (a + b + c) + c
        self.pooled = nn.Sequential(
            nn.LayerNorm(pooled), nn.Linear(pooled, 384), nn.LeakyReLU(0.2), nn.Linear(384, 256), nn.LeakyReLU(0.2)
        )
        self.w = nn.Linear(256, styles * STYLE_DIM)
        for last in (self.f[2], self.w):
            assert isinstance(last, nn.Conv2d | nn.Linear)
            last.weight.data.mul_(0.1)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, seen: Tensor, f: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The change of a code, in standard deviations.

        Args:
            seen: float32 [B, seen, 64, 64].
            f: float32 [B, channels, cut, cut], normalised; only for a look that reads it.

        Returns:
            The changes of f, float32 [B, channels, cut, cut], and of w_m_plus, float32 [B, styles, 512].
        """
        x = self.at64(seen)
        y = self.at32(x)
        z = self.to16(y) + self.skip(F.pixel_unshuffle(y, 2))
        if self.read_f is not None:
            z = z + self.read_f(f)
        z = self.at16(F.leaky_relu(z, 0.2))
        pooled = torch.cat([*moments(x), *moments(y), *moments(z), self.at4(z).mean((2, 3))], dim=1)
        w: Tensor = self.w(self.pooled(pooled))
        return self.f(z), w.view(-1, self.styles, STYLE_DIM)


class CoarseLook(nn.Module):
    """From the aligned face, float32 [B, 3, 128, 128], to coarse styles in standard deviations, [B, coarse, 512]."""

    def __init__(self, *, coarse: int) -> None:
        super().__init__()
        self.coarse = coarse
        self.body = nn.Sequential(
            stage(48, 96, 1, stride=1, squeeze=False),
            stage(96, 160, 2),
            stage(160, 256, 2),
            ConvNorm(256, 256, 2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.w = nn.Sequential(nn.Linear(256 * 16, 512), nn.LeakyReLU(0.2), nn.Linear(512, coarse * STYLE_DIM))

    def forward(self, face: Tensor) -> Tensor:
        """See the class."""
        assert face.shape[1:] == (3, FACE, FACE)
        w: Tensor = self.w(self.body(F.pixel_unshuffle(face, 4)))
        return w.view(-1, self.coarse, STYLE_DIM)


class CoarseStyles(nn.Module):
    """A photo and where its face lies, to the coarse styles w_1..M-1: a coarse look with the statistics of W.

    Args:
        coarse: number of coarse styles.
    """

    w_mean: Tensor
    w_std: Tensor

    def __init__(self, *, coarse: int) -> None:
        super().__init__()
        self.look = CoarseLook(coarse=coarse)
        self.register_buffer("w_mean", torch.zeros(STYLE_DIM))
        self.register_buffer("w_std", torch.ones(STYLE_DIM))

    @classmethod
    def of(cls, looks: TwoLooks) -> CoarseStyles:
        """Share the coarse look of ``looks``."""
        made = cls(coarse=looks.coarse)
        made.look, made.w_mean, made.w_std = looks.coarse_look, looks.w_mean, looks.w_std
        return made

    def forward(self, photo: Tensor, theta: Tensor) -> Tensor:
        """As :meth:`TwoLooks.look_at_face`."""
        face = resample(photo, inverse(theta), (FACE, FACE))
        styles: Tensor = self.look(face) * self.w_std + self.w_mean
        return styles


class CodeLooks(nn.Module):
    """The first and the second look, which give a photo's code, and the statistics that normalise codes.

    Args:
        cut: side of f, 16.
        styles: number of styles in ``w_m_plus``.
        channels: channels of f.
    """

    f_mean: Tensor
    f_std: Tensor
    w_mean: Tensor
    w_std: Tensor

    def __init__(self, *, cut: int = 16, styles: int = 12, channels: int = 512) -> None:
        super().__init__()
        assert cut == 16
        self.cut, self.styles, self.channels = cut, styles, channels
        self.first = Look(seen=48, shape=FIRST, cut=cut, styles=styles, channels=channels)
        self.second = Look(seen=96, shape=SECOND, cut=cut, styles=styles, channels=channels, reads_f=True)
        self.register_buffer("f_mean", torch.zeros(channels))
        self.register_buffer("f_std", torch.ones(channels))
        self.register_buffer("w_mean", torch.zeros(STYLE_DIM))
        self.register_buffer("w_std", torch.ones(STYLE_DIM))

    def forward(self, photo: Tensor, paint: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """A photo's code.

        Args:
            photo: as for :meth:`look`.
            paint: the short head: f and w_m_plus to an image, float32 [B, 3, 256, 256].

        Returns:
            f and w_m_plus: float32 [B, channels, cut, cut] and [B, styles, 512].
        """
        f, w = self.look(photo)
        painted = paint(self.denormalise_f(f), self.denormalise_w(w)).clamp(-1.5, 1.5)
        f, w = self.look_again(photo, painted, f, w)
        return self.denormalise_f(f), self.denormalise_w(w)

    def look(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """The first look.

        Args:
            photo: float32 [B, 3, 256, 256], RGB in [-1, 1].

        Returns:
            f and w_m_plus, normalised: float32 [B, channels, cut, cut] and [B, styles, 512].
        """
        assert photo.shape[1:] == (3, PHOTO, PHOTO)
        f, w = self.first(F.pixel_unshuffle(photo, 4))
        return f, w

    def look_again(self, photo: Tensor, painted: Tensor, f: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The second look.

        Args:
            photo: as for :meth:`look`.
            painted: float32 [B, 3, 256, 256], the short head's image of the code so far.
            f: the normalised f so far.
            w: the normalised w_m_plus so far.

        Returns:
            As :meth:`look`.
        """
        seen = torch.cat([F.pixel_unshuffle(photo, 4), F.pixel_unshuffle(photo - painted, 4)], dim=1)
        df, dw = self.second(seen, f)
        return f + df, w + dw

    def normalise_f(self, f: Tensor) -> Tensor:
        """f [B, channels, S, S] to zero mean and unit variance per channel."""
        return (f - self.f_mean[:, None, None]) / self.f_std[:, None, None]

    def denormalise_f(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`normalise_f`."""
        return x * self.f_std[:, None, None] + self.f_mean[:, None, None]

    def normalise_w(self, w: Tensor) -> Tensor:
        """Styles [B, n, 512] to standard deviations from their mean."""
        return (w - self.w_mean) / self.w_std

    def denormalise_w(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`normalise_w`."""
        return x * self.w_std + self.w_mean


class TwoLooks(CodeLooks):
    """The first and the second look with the coarse look, as they are trained.

    Args:
        cut: side of f, 16.
        coarse: number of coarse styles.
        styles: number of styles in ``w_m_plus``.
        channels: channels of f.
    """

    def __init__(self, *, cut: int = 16, coarse: int = 4, styles: int = 12, channels: int = 512) -> None:
        super().__init__(cut=cut, styles=styles, channels=channels)
        self.coarse = coarse
        self.coarse_look = CoarseLook(coarse=coarse)

    def look_at_face(self, photo: Tensor, theta: Tensor) -> Tensor:
        """The coarse look: the coarse styles w_1..M-1 of the face, float32 [B, coarse, 512].

        Args:
            photo: as for :meth:`look`.
            theta: float32 [B, 2, 3], from places in the photo to places in the aligned face; the identity if aligned.
        """
        face = resample(photo, inverse(theta), (FACE, FACE))
        return self.denormalise_w(self.coarse_look(face))
