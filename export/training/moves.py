"""Random similarity transforms, changes of light, and loss of detail: what photos do to an aligned face."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from networks.pixels import from_array, to_array


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


def degrade(image: Tensor, *, rng: torch.Generator) -> Tensor:
    """Photograph images again: most lose detail, half get noise, and some JPEG's blocks.

    Args:
        image: float32 [B, 3, S, S] in [-1, 1].
        rng: a random generator on the CPU.

    Returns:
        The same, clamped.
    """
    results = []
    for one in torch.split(image, 1):
        how, detail, noise, quality = torch.rand(4, generator=rng).tolist()
        found = one
        if how < 0.8:
            mode = "bicubic" if how < 0.4 else "bilinear"
            small = F.interpolate(
                found, size=round((0.3 + 0.6 * detail) * image.shape[-1]), mode="bilinear", antialias=True
            )
            found = F.interpolate(small, size=image.shape[-1], mode=mode)
        if noise < 0.5:
            found = found + 0.12 * noise * torch.randn(found.shape, generator=rng).to(found)
        elif noise > 0.7:
            found = as_jpeg(found, quality=int(40 + 55 * quality))
        results.append(found.clamp(-1, 1))
    return torch.cat(results)


def as_jpeg(image: Tensor, *, quality: int) -> Tensor:
    """An image [1, 3, S, S] in [-1, 1] after JPEG compression."""
    file = io.BytesIO()
    Image.fromarray(to_array(image)).save(file, "JPEG", quality=quality)
    return from_array(np.asarray(Image.open(file))).to(image)
