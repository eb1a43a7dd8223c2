"""Small critics, which learn to tell the generator's own from ours: one of full-size crops, one of codes.

A hinge loss (Lim and Ye, 2017) on patches (Isola et al., CVPR 2017): a few pixels are enough to spot crackle. That a
critic of codes keeps them editable is from e4e (Tov et al., SIGGRAPH 2021), which has one of styles; here it also sees
``f``, and both together, because parts of a code must fit each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM

Code = tuple[Tensor, Tensor]  # f [B, C, S, S] and w_m_plus [B, m, 512], normalised
Scores = tuple[Tensor, ...]  # each [B, ...], above 0 for the generator's own


class Critic(nn.Module):
    """Crops of pictures to scores of patches: of 38 px, which show crackle, and of 158 px, which show a whole eye."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.near = nn.Sequential(*_halve(3, width), *_halve(width, 2 * width), *_halve(2 * width, 4 * width))
        self.wide = nn.Sequential(*_halve(4 * width, 5 * width), *_halve(5 * width, 5 * width))
        self.small, self.large = nn.Conv2d(4 * width, 1, 3), nn.Conv2d(5 * width, 1, 3)

    def forward(self, crop: Tensor) -> Scores:
        """float32 [B, 3, S, S] in [-1, 1] to [B, 1, S / 8 - 2, S / 8 - 2] and [B, 1, S / 32 - 2, S / 32 - 2]."""
        near = self.near(crop)
        return self.small(near), self.large(self.wide(near))


def _halve(channels: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, out, 4, 2, 1)), nn.LeakyReLU(0.2)


class CodeCritic(nn.Module):
    """Normalised codes to scores, above 0 for the generator's own: one for each patch of f, and one for each style.

    Args:
        channels: channels of f.
        styles: number of styles in ``w_m_plus``.
        width: channels of the critic.
    """

    def __init__(self, *, channels: int = 512, styles: int = 12, width: int = 192) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        self.read_f = norm(nn.Conv2d(channels, width, 1))
        self.read_w = norm(nn.Linear(styles * STYLE_DIM, width))
        self.body = nn.Sequential(nn.LeakyReLU(0.2), norm(nn.Conv2d(width, width, 3)), nn.LeakyReLU(0.2))
        self.patches = norm(nn.Conv2d(width, 1, 3))
        self.style = nn.Sequential(norm(nn.Linear(STYLE_DIM, width)), nn.LeakyReLU(0.2), norm(nn.Linear(width, styles)))

    def forward(self, f: Tensor, w: Tensor) -> Scores:
        """The scores of codes.

        Args:
            f: float32 [B, channels, S, S].
            w: float32 [B, styles, 512].

        Returns:
            float32 [B, 1, S - 4, S - 4] and [B, styles].
        """
        seen = self.read_f(f) + self.read_w(w.flatten(1))[:, :, None, None]
        return self.patches(self.body(seen)), self.style(w).diagonal(dim1=1, dim2=2)


def critic_loss(true: Scores, ours: Scores, counts: Tensor | None = None) -> Tensor:
    """Hinge loss of a critic, a scalar: the sum over its kinds of scores.

    Args:
        true: scores of the generator's own.
        ours: scores of ours.
        counts: float32 [B], 1 for those of ours that count, 0 for the others; None if all do.
    """
    terms = [F.relu(1 - score).mean() for score in true]
    terms += [mean_of(F.relu(1 + score).flatten(1).mean(1), counts) for score in ours]
    return torch.stack(terms).sum()


def mean_of(values: Tensor, counts: Tensor | None) -> Tensor:
    """The mean of ``values`` [B] that count, a scalar; 0 where none does."""
    return values.mean() if counts is None else (values * counts).sum() / counts.sum().clamp(min=1)
