"""The loss of BDInvert, section 3.3, as separate terms.

``L = mse ||G(w*) - I||^2 + perceptual LPIPS(G(w*), I) + f ||f - f^o||^2 + p_norm ||P-norm+(w_M+)||^2``, each norm as a
mean over its elements. Images are compared at full size by the first term and at 256 px by the second, or in a coarse
step at some side by the first and at half of it by the second; both images of a comparison are reduced by the same area
average.

IDinvert adds ``domain ||w - E(G(w))||^2`` (section 3.2), E the encoder into W+, which sees the image at 256 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.detail import Detail
from networks.perceptual import STLPIPS
from networks.synthesis import Synthesis

PERCEPTUAL_SIZE = 256


@dataclass(frozen=True, eq=False)
class Target:
    """A photo as the loss sees it.

    Attributes:
        image: float32 [1, 3, s, s] in [-1, 1], RGB, as the first term compares it.
        features: the perceptual network's, as the second one does; computed once.
    """

    image: Tensor
    features: tuple[Tensor, ...]


class ImageTerms(nn.Module):
    """The two terms that look at the image.

    Args:
        synthesis: the generator; only its fine half runs.
        perceptual: the distance, of which the target's features are kept.
        autocast: whether convolutions run in bfloat16; norms and sums stay in float32.
        compiled: whether the generator and the comparison at full size are; smaller ones are not worth the wait.
        encoder: into W+, for the term of the domain; None where there is none.
    """

    def __init__(
        self,
        synthesis: Synthesis,
        perceptual: STLPIPS,
        *,
        autocast: bool,
        compiled: bool,
        encoder: Detail | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.synthesis = synthesis
        self.perceptual = perceptual
        self.autocast = autocast
        self._generate = torch.compile(self.image, dynamic=False) if compiled else self.image
        self._compare = torch.compile(self.compared, dynamic=False) if compiled else self.compared

    @torch.no_grad()
    def target(self, image: Tensor, side: int | None = None) -> Target:
        """What is kept of a photo.

        Args:
            image: uint8 [S, S, 3], S a power of two.
            side: at which the first term compares it; even, divides S, below it. None is S.
        """
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == torch.uint8
        pixels = image.permute(2, 0, 1)[None].float() / 127.5 - 1
        if side is None:
            return Target(pixels, tuple(self._features(pixels, PERCEPTUAL_SIZE)))
        return Target(reduced(pixels, side), tuple(self._features(pixels, side // 2)))

    def forward(
        self, f: Tensor, w_m_plus: Tensor, target: Tensor, *features: Tensor, domain: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The terms ``mse``, ``perceptual`` and, where it is asked for, ``domain`` of a batch.

        Args:
            f: float32 [B, C, s, s].
            w_m_plus: float32 [B, styles, 512].
            target: float32 [B, 3, s, s] in [-1, 1], of :meth:`target`.
            features: its five maps, float [B, C_i, H_i, W_i].

        Returns:
            Three of float32 [B].
        """
        image = self._generate(f, w_m_plus)
        compare = self._compare if target.shape == image.shape else self.compared
        mse, perceptual = compare(image, target, *features)
        return mse, perceptual, self._strayed(image, w_m_plus) if domain else torch.zeros_like(mse)

    def _strayed(self, image: Tensor, w_plus: Tensor) -> Tensor:
        """Mean square of w - E(G(w)), float32 [B]; image [B, 3, S, S], w_plus [B, styles, 512]."""
        assert self.encoder is not None
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.autocast):
            features = self.encoder.features(enlarged(reduced(image)))
        with torch.autocast(image.device.type, enabled=False):
            return (w_plus - self.encoder.of_features(features.float())).square().mean(dim=(1, 2))

    def image(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """float32 [B, 3, S, S] of f [B, C, s, s] and w_M+ [B, styles, 512]."""
        with torch.autocast(f.device.type, torch.bfloat16, enabled=self.autocast):
            return self.synthesis.fine(f, w_m_plus).float()

    def compared(self, image: Tensor, target: Tensor, *features: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms, of an image float32 [B, 3, S, S]; the rest as for :meth:`forward`."""
        side = target.shape[-1]
        size = PERCEPTUAL_SIZE if side == image.shape[-1] else side // 2
        mse = (reduced(image, side) - target).square().mean(dim=(1, 2, 3))
        return mse, self.perceptual(self._features(image, size), list(features))

    def _features(self, image: Tensor, size: int) -> list[Tensor]:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.autocast):
            return self.perceptual.features(reduced(image, size))


def reduced(image: Tensor, size: int = PERCEPTUAL_SIZE) -> Tensor:
    """Area average of [B, 3, S, S], S a multiple of ``size``, to [B, 3, size, size]; smaller ones as they are."""
    if image.shape[-1] < size:
        return image
    assert image.shape[-1] % size == 0
    return F.avg_pool2d(image, image.shape[-1] // size)


def enlarged(image: Tensor, size: int = PERCEPTUAL_SIZE) -> Tensor:
    """[B, 3, S, S], S a divisor of ``size``, to [B, 3, size, size] by repetition."""
    times = size // image.shape[-1]
    return image if times <= 1 else image.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
