"""The retouch's training: the finest detail of pictures, from samples at full size. The rest of the head stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from export.training.picture.crops import Crops
from export.training.picture.trainer import Plan, Trainer
from networks.perceptual import STLPIPS
from networks.picture_head import PictureHead

PLAN: Final = Plan(minutes=60.0, batch=6, rate=1e-3, alex=0.45, vgg=0.3, texture=70.0)


class RetouchTrainer(Trainer):
    """Trains the retouch of a picture head.

    Args:
        head: the network; all but its retouch stays.
        crops: examples, already made.
        distances: ST-LPIPS by Alex and by VGG.
        plan: options.
        folder: for checkpoints.
        say: receives lines of the log.
    """

    def __init__(
        self,
        head: PictureHead,
        crops: Crops,
        distances: tuple[STLPIPS, STLPIPS],
        plan: Plan,
        *,
        folder: Path,
        say: Callable[[str], None] = print,
    ) -> None:
        head.requires_grad_(requires_grad=False)
        head.retouch.requires_grad_(requires_grad=True)
        super().__init__(head, distances, plan, device=crops.device, folder=folder, say=say)
        self.crops = crops

    def paint(self, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Trainer`."""
        seen = self.crops.draw(self.plan.batch, self.plan.side, rng)
        return self.head.retouch(seen.render, seen.image), seen.target, torch.ones((), device=self.device)
