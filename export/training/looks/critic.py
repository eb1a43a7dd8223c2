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


class Critic(nn.Module):
    """float32 [B, 3, S, S] in [-1, 1] -> scores [B, 1, S / 8 - 2, S / 8 - 2], above 0 for the generator's own."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 4 * width):
            conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, out, 4, 2, 1))
            layers += [conv, nn.LeakyReLU(0.2)]
            channels = out
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3))

    def forward(self, crop: Tensor) -> Tensor:
        """See the class."""
        score: Tensor = self.body(crop)
        return score


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

    def forward(self, f: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of codes.

        Args:
            f: float32 [B, channels, S, S].
            w: float32 [B, styles, 512].

        Returns:
            float32 [B, 1, S - 4, S - 4] and [B, styles].
        """
        seen = self.read_f(f) + self.read_w(w.flatten(1))[:, :, None, None]
        return self.patches(self.body(seen)), self.style(w).diagonal(dim1=1, dim2=2)


def critic_loss(critic: Critic, true: Tensor, ours: Tensor) -> Tensor:
    """Hinge loss of a critic: a scalar. Either may be empty."""
    loss = torch.zeros(())
    if len(true):
        loss = loss + F.relu(1 - critic(true)).mean()
    if len(ours):
        loss = loss + F.relu(1 + critic(ours.detach())).mean()
    return loss


def code_critic_loss(critic: CodeCritic, true: Code, ours: Code) -> Tensor:
    """Hinge loss of a critic of codes: a scalar."""
    real, made = critic(*true), critic(*(part.detach() for part in ours))
    terms = [F.relu(1 - score).mean() for score in real] + [F.relu(1 + score).mean() for score in made]
    return torch.stack(terms).sum()
