"""The picture head's training: what it paints of photos and samples at 256 px."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from export.training.picture.examples import Shards
from export.training.picture.eyes import places, weights
from export.training.picture.trainer import Plan, Trainer
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.perceptual import STLPIPS
from networks.picture_head import STEP, PictureHead
from networks.precision import half
from networks.short_head import SIDE

CLOSE_TO_EYES = 0.5  # share of the crops that show an eye


class PictureTrainer(Trainer):
    """Trains all of the head but its retouch.

    Args:
        synthesis: the generator's, which stays.
        head: the network to train.
        shards: examples, already made.
        distances: ST-LPIPS by Alex and by VGG.
        plan: options.
        folder: for checkpoints.
        say: receives lines of the log.
    """

    def __init__(
        self,
        synthesis: MobileStyleGAN,
        head: PictureHead,
        shards: Shards,
        distances: tuple[STLPIPS, STLPIPS],
        plan: Plan,
        *,
        folder: Path,
        say: Callable[[str], None] = print,
    ) -> None:
        head.retouch.requires_grad_(requires_grad=False)
        super().__init__(head, distances, plan, device=shards.device, folder=folder, say=say)
        self.synthesis, self.shards = synthesis, shards

    def paint(self, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Trainer`; errors in eyes weigh more."""
        examples = self.shards.draw(self.plan.batch, rng)
        side, eyes = self.plan.side // STEP, places(examples.theta)
        corners = [self._corner(both, rng) for both in eyes.cpu()]

        def crops(maps: Tensor, step: int) -> Tensor:
            spots = ([slice(step * at, step * (at + side)) for at in corner] for corner in corners)
            return torch.stack([one[:, down, across] for one, (down, across) in zip(maps, spots, strict=True)])

        with half(self.device):
            with torch.no_grad():
                features = self.synthesis.features(examples.f, examples.w_m_plus)
            late = examples.w_m_plus[:, -LATE_STYLES:]
            image = self.head(crops(features, 1), late, crops(examples.render, STEP))
        return image, crops(examples.target, STEP), crops(weights(eyes), STEP)

    def _corner(self, eyes: Tensor, rng: torch.Generator) -> tuple[int, int]:
        """Row and column of a crop, in features; ``eyes`` [2, 2] as of `places`."""
        side = self.plan.side // STEP
        shift = 6 * torch.randn(2, generator=rng)  # px
        which, near = int(torch.randint(2, (), generator=rng)), float(torch.rand((), generator=rng))
        anywhere = torch.randint(SIDE - side + 1, (2,), generator=rng).tolist()
        if near >= CLOSE_TO_EYES:
            return anywhere[0], anywhere[1]
        about = ((eyes[which] + shift) / STEP - side / 2).round().clamp(0, SIDE - side)
        return int(about[1]), int(about[0])
