"""MobileFaceNet (Chen et al., CCBR 2018), a second face descriptor, used as a loss.

Two descriptors of 512 numbers are compared by their cosine.
"""

from __future__ import annotations

from torch import Tensor, nn

SIDE = 112
# Eyes in a face chip, where ArcFace puts them, as fractions of its side.
EYES = ((38.2946 / 112, 51.6 / 112), (73.5318 / 112, 51.6 / 112))
# Inner channels, output channels, stride of the first bottleneck, and number of residual ones after it.
STAGES = ((128, 64, 2, 4), (256, 128, 2, 6), (512, 128, 2, 2))


def conv(channels_in: int, channels_out: int, size: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution with its batch norm folded in."""
    return nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups)


def bottleneck(channels_in: int, inner: int, channels_out: int, stride: int) -> nn.Sequential:
    """Widen by 1x1, convolve depthwise by 3x3, narrow by 1x1."""
    return nn.Sequential(
        conv(channels_in, inner), nn.PReLU(inner),
        conv(inner, inner, 3, stride=stride, groups=inner), nn.PReLU(inner),
        conv(inner, channels_out),
    )  # fmt: skip


class Stage(nn.Module):
    """A bottleneck that halves the side, then residual ones."""

    def __init__(self, channels_in: int, inner: int, channels_out: int, stride: int, more: int) -> None:
        super().__init__()
        self.first = bottleneck(channels_in, inner, channels_out, stride)
        width = 2 * channels_out
        self.more = nn.ModuleList(bottleneck(channels_out, width, channels_out, 1) for _ in range(more))

    def forward(self, x: Tensor) -> Tensor:
        # x [B, C, S, S] -> [B, channels_out, S / 2, S / 2]
        x = self.first(x)
        for block in self.more:
            x = x + block(x)
        return x


class FaceNet(nn.Module):
    """From a face chip to its descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, 64, 3, stride=2), nn.PReLU(64),
            conv(64, 64, 3, groups=64), nn.PReLU(64),
        )  # fmt: skip
        inputs = (64, *(out for _, out, _, _ in STAGES))
        self.stages = nn.Sequential(*(Stage(i, *shape) for i, shape in zip(inputs, STAGES, strict=False)))
        self.last = nn.Sequential(
            conv(128, 512), nn.PReLU(512), nn.Conv2d(512, 512, 7, groups=512), nn.Conv2d(512, 512, 1)
        )

    def forward(self, chip: Tensor) -> Tensor:
        """The descriptor of a face.

        Args:
            chip: float32 [B, 3, 112, 112], RGB in [-1, 1], the eyes at :data:`EYES`.

        Returns:
            float32 [B, 512], not normalised.
        """
        assert chip.ndim == 4 and chip.shape[1:] == (3, SIDE, SIDE)
        x: Tensor = self.last(self.stages(self.stem((chip + 1) * (127.5 / 128) - 127 / 128)))
        return x.flatten(1)
