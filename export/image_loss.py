"""The paper's training loss: ||G(E(I), w_M+) - I||^2 + lambda * perceptual (BDInvert, section 3.2).

Compared at 256 px. The perceptual network is ST-LPIPS with Alex, so that the VGG variant stays an
independent measure; it costs a tenth of it, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.samples import IMAGE_SIZE
from judges.perceptual import stlpips
from networks.generator_file import Generator
from networks.mobilestylegan import NUM_STYLES, coarse_styles


class ImageLoss(nn.Module):
    """The loss of feature maps, given the true fine styles and the target images."""

    def __init__(
        self, generator: Generator, *, perceptual_weight: float, device: torch.device, compiled: bool = False
    ) -> None:
        super().__init__()
        self.synthesis = generator.synthesis
        self.perceptual = stlpips("alex").to(device)
        self.perceptual_weight = perceptual_weight
        self._render = torch.compile(self.render) if compiled else self.render

    def render(self, f: Tensor, w: Tensor) -> Tensor:
        """f [B, 512, cut, cut], w [B, 512] -> images [B, 3, 256, 256], area-averaged from 1024 px."""
        with torch.autocast(f.device.type, torch.bfloat16):
            styles = NUM_STYLES - coarse_styles(f.shape[-1])
            image = self.synthesis.fine(f, w[:, None].expand(-1, styles, -1)).float()
        return F.avg_pool2d(image, image.shape[-1] // IMAGE_SIZE)

    def forward(self, f: Tensor, w: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            f: float32 [B, 512, cut, cut], the encoder's output.
            w: float32 [B, 512], the true style of all fine layers.
            target: float32 [B, 3, 256, 256] in [-1, 1].

        Returns:
            A scalar.
        """
        total = f.new_zeros(())
        step = len(f) if f.is_cuda else 1  # one at a time is the fastest on a CPU: the maps then fit its cache
        for i in range(0, len(f), step):
            s = slice(i, i + step)
            image = self._render(f[s], w[s])
            total = total + F.mse_loss(image, target[s], reduction="sum") / target[0].numel()
            total = total + self.perceptual_weight * self.perceptual(image, target[s]).sum()
        return total / len(f)
