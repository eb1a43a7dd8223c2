"""Pictures made smaller by their area average, as all terms of the loss compare them."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional as F

PERCEPTUAL_SIZE: Final = 256


def reduced(image: Tensor, size: int = PERCEPTUAL_SIZE) -> Tensor:
    """Area average of [B, 3, S, S], S a multiple of ``size``, to [B, 3, size, size]; smaller ones are kept."""
    if image.shape[-1] < size:
        return image
    assert image.shape[-1] % size == 0
    return F.avg_pool2d(image, image.shape[-1] // size)
