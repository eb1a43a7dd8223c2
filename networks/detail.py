"""The detail head D: image to w_M+, the styles of the fine layers. The paper uses the mean of W instead.

Fine styles do not depend on where a face is, so features are pooled over the whole image. The features are those of
ST-LPIPS' Alex network. It has seen a million photos, and knows more colours and textures than samples of a generator
can teach. What is learned is linear in them.

In W+, the styles also hold place and pose. There the head reads the last map as a grid as well, and serves as the
encoder into W+ of the methods that the paper compares with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.mapping import STYLE_DIM
from networks.perceptual import STLPIPS
from protocol.cuts import W_PLUS

RANK = 512
LIMIT = 2.5
PATCH = 6  # side of a cell of the grid


class Detail(nn.Module):
    """D(I) = w_M+.

    Buffers: ``mean`` and ``scale``, float32 [F], which standardise the features. F is 2310, or 8710 with a grid.
    """

    input_size = 256
    mean: Tensor
    scale: Tensor

    def __init__(self, *, cut: int = 16, count: int = 12, rank: int = RANK) -> None:
        """cut: 4 for W+. count: number of styles after the cut."""
        super().__init__()
        self.cut, self.count = cut, count
        self.grid = cut == W_PLUS
        self.backbone = STLPIPS("alex")
        widths = [head.numel() for head in self.backbone.heads]
        features = 2 * (3 + sum(widths)) + (25 * widths[-1] if self.grid else 0)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.hidden = nn.Linear(features, rank, bias=False)
        self.styles = nn.Linear(rank, self.count * STYLE_DIM)

    def features(self, image: Tensor) -> Tensor:
        """Mean and standard deviation of the pixels and of each map of the backbone; with a grid, also its last map.

        Args:
            image: float32 [B, 3, 256, 256], RGB in [-1, 1].

        Returns:
            float32 [B, F], not standardised.
        """
        assert image.ndim == 4 and image.shape[1:] == (3, self.input_size, self.input_size)
        x = (image - self.backbone.mean) / self.backbone.std
        found = [*moments(x)]
        for stage in self.backbone.stages:
            x = stage(x)
            found += moments(x.float())
        if self.grid:
            # [B, 256, 32, 32] -> [B, 256, 5, 5]
            found.append(F.avg_pool2d(x.float(), PATCH).flatten(1))
        return torch.cat(found, dim=1)

    def of_features(self, features: Tensor) -> Tensor:
        """float32 [B, F] -> w_m_plus, as :meth:`forward`."""
        components = self.hidden((features - self.mean) / self.scale)
        # Components of samples have unit variance. Outliers are shortened: their styles would overflow the generator.
        length = components.square().mean(dim=1, keepdim=True).sqrt()
        w: Tensor = self.styles(components * (LIMIT / length.clamp(min=LIMIT)))
        return w.view(-1, self.count, STYLE_DIM)

    def forward(self, image: Tensor) -> Tensor:
        """The styles of an image.

        Args:
            image: float32 [B, 3, 256, 256], RGB in [-1, 1].

        Returns:
            w_m_plus: float32 [B, count, 512].
        """
        return self.of_features(self.features(image))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each map: [B, C, H, W] -> [B, C] twice."""
    mean = x.mean(dim=(2, 3))
    variance = (x - mean[:, :, None, None]).square().mean(dim=(2, 3))
    return mean, (variance + 1e-6).sqrt()  # keeps the gradient of a constant map finite
