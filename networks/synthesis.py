"""The interface of a synthesis network G: one style per layer, square images, and a cut into a coarse and a fine half.

The cut is at the feature map ``f`` of side 8 or 16 (BDInvert, section 3.1). ``coarse`` makes ``f`` from the styles
before the cut. ``fine`` makes the image from ``f`` and ``w_m_plus``, the styles from layer M on.

W+ is the cut before the first layer, M = 1: ``f`` is the network's constant of side 4, which depends on no style, and
``w_m_plus`` is all of ``w_plus``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from networks.mapping import STYLE_DIM
from protocol.cuts import CUTS, W_PLUS


class Synthesis(nn.Module, ABC):
    """A generator's G: from styles to an image, whole or in two halves.

    Attributes:
        size: side of the image in pixels.
        num_styles: number of styles in ``w_plus``.
    """

    size: int
    num_styles: int

    @abstractmethod
    def coarse_styles(self, cut: int) -> int:
        """Number of styles that the coarse half consumes.

        Raises:
            ValueError: ``cut`` is not 4, 8 or 16.
        """

    @abstractmethod
    def f_channels(self, cut: int) -> int:
        """Channels of ``f``."""

    @abstractmethod
    def forward(self, w_plus: Tensor) -> Tensor:
        """Render images.

        Args:
            w_plus: float32 [B, num_styles, 512].

        Returns:
            Images, float32 [B, 3, size, size], RGB, nominally in [-1, 1] and not clamped.
        """

    @abstractmethod
    def coarse(self, w: Tensor, *, cut: int) -> Tensor:
        """The coarse half G_1..M-1.

        Args:
            w: float32 [B, coarse_styles(cut), 512]: the styles w_1..M-1.
            cut: 4, 8 or 16.

        Returns:
            f: float32 [B, f_channels(cut), cut, cut].
        """

    @abstractmethod
    def fine(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """The fine half G_M+. The size of ``f`` says which cut it is.

        Args:
            f: float32 [B, f_channels(cut), cut, cut] (the paper's f).
            w_m_plus: float32 [B, fine_styles(cut), 512]: the styles of the layers from M on.

        Returns:
            As :meth:`forward`.
        """

    @abstractmethod
    def modulations(self, w_m_plus: Tensor) -> list[Tensor]:
        """The scales, and in StyleGAN also shifts, that the fine half computes from its styles: all it uses of them.

        Args:
            w_m_plus: float32 [B, n, 512], as for :meth:`fine`.

        Returns:
            One float32 [B, C_i] per style; for a style that enters several layers, those of all layers, concatenated.
        """

    @abstractmethod
    def lower(self, dtype: torch.dtype, *, blocks: int = 4) -> None:
        """Compute the last blocks in half precision; styles, sums of images and the image stay float32.

        Args:
            dtype: torch.float16 or torch.bfloat16.
            blocks: how many, counted from the largest resolution; four as published (StyleGAN2-ADA, appendix C).
        """

    def fine_styles(self, cut: int) -> int:
        """Number of styles in ``w_m_plus``."""
        return self.num_styles - self.coarse_styles(cut)

    def cut_of(self, fine_styles: int) -> int:
        """The cut whose ``w_m_plus`` has this number of styles.

        Raises:
            ValueError: there is no such cut.
        """
        for cut in (W_PLUS, *CUTS):
            if self.fine_styles(cut) == fine_styles:
                return cut
        raise ValueError(f"no cut of this network leaves {fine_styles} styles")

    def check_w_plus(self, w_plus: Tensor) -> None:
        """Assert the shape [B, num_styles, 512]."""
        assert w_plus.ndim == 3 and w_plus.shape[1:] == (self.num_styles, STYLE_DIM)

    def check_coarse(self, w: Tensor, cut: int) -> None:
        """Assert the shape [B, coarse_styles(cut), 512]."""
        assert w.ndim == 3 and w.shape[1:] == (self.coarse_styles(cut), STYLE_DIM)

    def check_fine(self, f: Tensor, w_m_plus: Tensor) -> int:
        """Assert the shapes of the arguments of :meth:`fine`, and return the cut."""
        cut = int(f.shape[-1])  # a tensor while a graph is traced
        assert f.ndim == 4 and cut in (W_PLUS, *CUTS) and f.shape[1:] == (self.f_channels(cut), cut, cut)
        assert w_m_plus.ndim == 3 and w_m_plus.shape[1:] == (self.fine_styles(cut), STYLE_DIM)
        return cut


def check_cut(cut: int) -> None:
    """Raise ValueError unless a cut is 4, 8 or 16."""
    if cut not in (W_PLUS, *CUTS):
        raise ValueError(f"cut must be one of {(W_PLUS, *CUTS)}, not {cut}")
