"""Images as uint8 pixels in 0..255, and as the networks take them: float32 in [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 [...] -> float32 [...] in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """float [...], nominally in [-1, 1] -> uint8 [...], clamped and rounded to nearest."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_array(image: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [-1, 1]."""
    return from_uint8(torch.from_numpy(image.copy()).to(device).permute(2, 0, 1)[None])


def to_array(image: Tensor) -> NDArray[np.uint8]:
    """float [1, 3, H, W], nominally in [-1, 1] -> uint8 [H, W, 3]."""
    array: NDArray[np.uint8] = to_uint8(image[0]).permute(1, 2, 0).cpu().numpy()
    return array
