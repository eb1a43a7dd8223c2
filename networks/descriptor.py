"""dlib's face descriptor (King, "High quality face recognition with deep metric learning", 2017), with gradients.

A residual network of 29 convolutions. For two photos of one person its 128 numbers lie within 0.6 of each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 150
# Centres of the eyes in a face chip, as fractions of its side.
EYES = ((0.318, 0.314), (0.669, 0.314))
_MEAN = (122.782, 117.001, 104.298)
# Name, input channels, output channels, and whether the block halves the side.
BLOCKS = (
    ("conv32_1", 32, 32, False),
    ("conv32_2", 32, 32, False),
    ("conv32_3", 32, 32, False),
    ("conv64_down", 32, 64, True),
    ("conv64_1", 64, 64, False),
    ("conv64_2", 64, 64, False),
    ("conv64_3", 64, 64, False),
    ("conv128_down", 64, 128, True),
    ("conv128_1", 128, 128, False),
    ("conv128_2", 128, 128, False),
    ("conv256_down", 128, 256, True),
    ("conv256_1", 256, 256, False),
    ("conv256_2", 256, 256, False),
    ("conv256_down_out", 256, 256, True),
)


class Block(nn.Module):
    """Two convolutions and a shortcut, which with ``down`` halves the side and pads the channels with zeros."""

    def __init__(self, before: int, after: int, *, down: bool) -> None:
        super().__init__()
        stride, padding = (2, 0) if down else (1, 1)
        self.down = down
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [B, before, S, S] -> [B, after, S or S // 2, S or S // 2]."""
        y: Tensor = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            # For an odd side, pooling gives one column more than the unpadded convolution.
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return F.relu(x + y)


class Descriptor(nn.Module):
    """From a face chip to its descriptor."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.first = nn.Conv2d(3, 32, 7, 2)
        self.blocks = nn.ModuleDict({name: Block(before, after, down=down) for name, before, after, down in BLOCKS})
        self.last = nn.Linear(256, 128, bias=False)

    def forward(self, chip: Tensor) -> Tensor:
        """The descriptor of a face.

        Args:
            chip: float32 [B, 3, 150, 150], RGB in [-1, 1], the eyes at :data:`EYES`.

        Returns:
            float32 [B, 128]; a Euclidean distance below 0.6 means the same person.
        """
        assert chip.ndim == 4 and chip.shape[1:] == (3, SIDE, SIDE)
        x = ((chip + 1) * 127.5 - self.mean) / 256
        x = F.max_pool2d(F.relu(self.first(x)), 3, 2)
        for block in self.blocks.values():
            x = block(x)
        descriptor: Tensor = self.last(x.mean(dim=(2, 3)))
        return descriptor
