"""Random similarity transforms, and changes of light: what photos do to an aligned face."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MoveRanges:
    """Ranges of a geometric transformation, uniform in each."""

    rotation: float = 35.0  # degrees, either way
    shift: float = 0.25  # fraction of the image, either way
    zoom: tuple[float, float] = (0.5, 1.4)  # log-uniform; above 1 the face is larger


def draw_moves(count: int, *, moves: MoveRanges, rng: torch.Generator) -> Tensor:
    """Random similarity transforms as ``affine_grid`` matrices, float32 [count, 2, 3]."""
    angle, zoom, x, y = torch.rand(4, count, generator=rng)
    angle = (2 * angle - 1) * math.radians(moves.rotation)
    scale = 1 / (moves.zoom[0] * (moves.zoom[1] / moves.zoom[0]) ** zoom)
    x, y = ((2 * t - 1) * 2 * moves.shift for t in (x, y))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)


def tint(image: Tensor, *, rng: torch.Generator) -> Tensor:
    """Change contrast, brightness and the balance of colours a little, as cameras do and generators do not.

    Args:
        image: float32 [B, 3, S, S] in [-1, 1].
        rng: a random generator on the CPU.

    Returns:
        The same, clamped.
    """
    contrast = 0.8 + 0.4 * torch.rand(len(image), 1, 1, 1, generator=rng)
    brightness = 0.2 * torch.rand(len(image), 1, 1, 1, generator=rng) - 0.1
    balance = 0.1 * torch.rand(len(image), 3, 1, 1, generator=rng) - 0.05
    return (image * contrast.to(image) + (brightness + balance).to(image)).clamp(-1, 1)
