"""The picture head: from a faithful code's features, and the other code's render, to a clean image at 256 px.

The short head paints what the two looks were trained by: a faithful code's hair and skin have a mesh, because ST-LPIPS
likes it better than nothing. This head was trained with those looks fixed, and with losses that see the mesh. It starts
as a short head, has twice the blocks, and sees the render: clean, in the same place, and of another person. Its
``retouch`` makes a picture at full size of both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM
from networks.retouch import Retouch
from networks.short_head import SIDE, SIZE, ShortHead, scaled

STEP = SIZE // SIDE


class PictureHead(ShortHead):
    """A short head that sees a render, and paints on at 128 px.

    Args:
        late: number of styles after the features.
        features: channels of the features.
        width: channels of the blocks at 64 px.
        blocks: number of blocks.
        finer: channels at 128 px.
    """

    def __init__(
        self, *, late: int = 7, features: int = 512, width: int = 96, blocks: int = 4, finer: int = 48
    ) -> None:
        super().__init__(late=late, features=features, width=width, blocks=blocks)
        self.see = nn.Conv2d(3 * STEP**2, width, 3, padding=1)
        self.up = nn.Conv2d(width, 4 * finer, 3, padding=1)
        self.finer1 = nn.Conv2d(finer + 12, finer, 3, padding=1)
        self.finer2 = nn.Conv2d(finer, finer, 3, padding=1)
        self.correct = nn.Conv2d(finer, 12, 3, padding=1)
        self.retouch = Retouch()

    def start_from(self, head: ShortHead) -> None:
        """Paint nearly what a short head of this width paints: the blocks it lacks rectify once more, and no more."""
        self.load_state_dict(head.state_dict(), strict=False)
        blank = [self.see, self.correct, *list(self.scales)[len(head.scales) :], *list(self.conv2)[len(head.conv2) :]]
        for layer in blank:
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, late: Tensor, render: Tensor) -> Tensor:  # type: ignore[override]
        """Paint an image.

        Args:
            features: float [B, C, S, S], of :meth:`networks.mobilestylegan.MobileStyleGAN.features` of the faithful
                code: whole, S = 64, or a crop.
            late: float32 [B, late, 512], the styles after them.
            render: float32 [B, 3, 4 S, 4 S], the other code's render at 256 px, or the same crop of it.

        Returns:
            float32 [B, 3, 4 S, 4 S], nominally in [-1, 1].
        """
        assert late.shape[1:] == (self.late, STYLE_DIM)
        assert render.shape[2] == STEP * features.shape[2]
        style = self.style(late.flatten(1))
        x = self.enter(scaled(features, self.enter_scale(style))) + self.see(F.pixel_unshuffle(render, STEP))
        x = self.blocks(x, style)
        y = F.pixel_shuffle(F.leaky_relu(self.up(x), 0.2), 2)
        y = torch.cat([y, F.pixel_unshuffle(render, 2).to(y.dtype)], dim=1)
        y = F.leaky_relu(self.finer1(y), 0.2)
        y = F.leaky_relu(y + self.finer2(y), 0.2)
        return F.pixel_shuffle(self.image(x), STEP).float() + F.pixel_shuffle(self.correct(y), 2).float()
