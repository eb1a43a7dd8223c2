"""The mapping network: z to w."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STYLE_DIM = 512


class MappingNetwork(nn.Module):
    """Fully connected layers from Z to W, eight as published (StyleGAN, section 2), with truncation.

    Buffer: ``w_avg``, float32 [512], the mean of W and the centre of truncation (StyleGAN, appendix B).
    """

    w_avg: Tensor

    def __init__(self, *, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(STYLE_DIM, STYLE_DIM) for _ in range(depth))
        self.register_buffer("w_avg", torch.zeros(STYLE_DIM))

    def forward(self, z: Tensor, psi: Tensor | float = 1.0) -> Tensor:
        """Map latents to styles.

        Args:
            z: float32 [B, 512], standard normal.
            psi: truncation, a number or float32 [B, 1]: 1 for none, 0 for ``w_avg``.

        Returns:
            w: float32 [B, 512].
        """
        assert z.ndim == 2 and z.shape[1] == STYLE_DIM, f"z must be [B, {STYLE_DIM}]"
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2) * 2**0.5
        return self.w_avg + psi * (x - self.w_avg)
