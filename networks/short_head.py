"""The short head: from the features at 64 px and the late styles to an image at 256 px, as the late layers would paint.

It costs a twentieth of the fine half. The second look depends on it; previews and the training use it too.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM

SIDE = 64  # of the features
SIZE = 256  # of the image


class ShortHead(nn.Module):
    """Residual convolutions at 64 px, their inputs scaled by the styles, and a pixel shuffle.

    Args:
        late: number of styles after the features.
        features: channels of the features.
        width: channels of the blocks.
        blocks: number of blocks.
    """

    def __init__(self, *, late: int = 7, features: int = 512, width: int = 96, blocks: int = 2) -> None:
        super().__init__()
        self.late = late
        self.style = nn.Sequential(nn.Linear(late * STYLE_DIM, 256), nn.LeakyReLU(0.2))
        self.enter_scale = nn.Linear(256, features)
        self.enter = nn.Conv2d(features, width, 1)
        self.scales = nn.ModuleList(nn.Linear(256, width) for _ in range(blocks))
        self.conv1 = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.conv2 = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.image = nn.Conv2d(width, 3 * (SIZE // SIDE) ** 2, 3, padding=1)
        for conv in self.conv2:
            assert isinstance(conv, nn.Conv2d)
            conv.weight.data.mul_(0.3)

    def forward(self, features: Tensor, late: Tensor) -> Tensor:
        """Paint an image.

        Args:
            features: float [B, C, 64, 64], of :meth:`networks.mobilestylegan.MobileStyleGAN.features`.
            late: float32 [B, late, 512], the styles after them.

        Returns:
            float32 [B, 3, 256, 256], nominally in [-1, 1].
        """
        assert features.shape[2:] == (SIDE, SIDE)
        assert late.shape[1:] == (self.late, STYLE_DIM)
        style = self.style(late.flatten(1))
        x = self.blocks(self.enter(scaled(features, self.enter_scale(style))), style)
        return F.pixel_shuffle(self.image(x), SIZE // SIDE).float()

    def blocks(self, x: Tensor, style: Tensor) -> Tensor:
        """The residual blocks.

        Args:
            x: float [B, width, 64, 64], not yet rectified.
            style: float [B, 256].

        Returns:
            float [B, width, 64, 64].
        """
        x = F.leaky_relu(x, 0.2)
        for scale, conv1, conv2 in zip(self.scales, self.conv1, self.conv2, strict=True):
            x = F.leaky_relu(x + conv2(F.leaky_relu(conv1(scaled(x, scale(style))), 0.2)), 0.2)
        return x


def scaled(x: Tensor, change: Tensor) -> Tensor:
    """x [B, C, S, S] times 1 + change [B, C]."""
    return x * (1 + change).to(x.dtype)[:, :, None, None]
