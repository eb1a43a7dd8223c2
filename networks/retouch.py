"""The retouch: the picture of two codes, with its finest detail corrected.

Back-projection puts the detail of one code's render onto another code's image. Where the two show different things, as
glasses of another shape, that detail is wrong, and where the image is sharper than the render it is missing. This
network is small and works at a quarter of the picture's size. It sees the detail, the image and how far the render is
from it, and corrects the luma of what is finer than the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.back_projection import back_projected

TIMES = 4  # from the image's side to the render's
LUMA = (0.299, 0.587, 0.114)
DETAIL = 4.0  # detail is weaker than what else it sees


class Retouch(nn.Module):
    """Back-projects, and corrects what comes of it.

    Args:
        width: channels.
        blocks: number of convolutions between the first and the last.
    """

    parts: Tensor

    def __init__(self, *, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.enter = nn.Conv2d(TIMES**2 + 6, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.correct = nn.Conv2d(width, TIMES**2, 3, padding=1)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)  # type: ignore[arg-type]
        # Luma, and a pixel unshuffle, in one convolution.
        parts = torch.eye(TIMES**2).reshape(-1, 1, TIMES, TIMES) * torch.tensor(LUMA)[None, :, None, None]
        self.register_buffer("parts", parts, persistent=False)

    def forward(self, render: Tensor, image: Tensor) -> Tensor:
        """Make the picture.

        Args:
            render: float32 [B, 3, 4 S, 4 S], with the detail.
            image: float32 [B, 3, S, S], what the picture shows.

        Returns:
            float32 [B, 3, 4 S, 4 S].
        """
        assert render.shape[2:] == (TIMES * image.shape[2], TIMES * image.shape[3])
        picture = back_projected(render, image)
        luma = F.conv2d(image, self.parts.sum(dim=(2, 3), keepdim=True))
        detail = F.conv2d(picture, self.parts, stride=TIMES) - luma
        x = torch.cat([DETAIL * detail, image, image - F.avg_pool2d(render, TIMES)], dim=1)
        x = F.leaky_relu(self.enter(x), 0.2)
        for block in self.blocks:
            x = x + F.leaky_relu(block(x), 0.2)
        # Without its mean over a pixel of the image, which is right already.
        assert self.correct.bias is not None
        weight, bias = (part - part.mean(dim=0) for part in (self.correct.weight, self.correct.bias))
        return picture + F.pixel_shuffle(F.conv2d(x, weight, bias, padding=1), TIMES)
