"""YuNet (Wu et al., Machine Intelligence Research 2023; OpenCV Zoo), and the faces of a photo by it.

The network looks at BGR pixels, 0 to 255. For each cell of the strides 8, 16 and 32 it gives a class and an object
score, a box (offset of its middle, logarithm of its size) and five points (offsets), all in units of the stride. It is
trained on faces of 10 to 300 px, so :class:`FaceFinder` shows it a photo at several scales.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
# A photo is looked at in its own size, and halved one to three times.
LEVELS = 4
# Faces that are returned at most, the best ones.
MOST = 64
THRESHOLD = 0.75
# Boxes that overlap more than this are one face; those that overlap more than SAME agree on its landmarks.
OVERLAP = 0.3
SAME = 0.6
CANDIDATES = 1024
# Longest chain of boxes, each suppressed by the one before, that is resolved.
ROUNDS = 24


class Separable(nn.Module):
    """A 1x1 convolution, then a 3x3 convolution of each channel."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(ins, outs, 1)
        self.depthwise = nn.Conv2d(outs, outs, 3, padding=1, groups=outs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H, W]."""
        y: Tensor = self.depthwise(self.pointwise(x))
        return y


class YuNet(nn.Module):
    """Image [B, 3, H, W], BGR 0..255, H and W multiples of 32 -> per stride: [B, 2 + 4 + 10, H / stride, W / stride].

    The channels are the class score and the object score (0 to 1), the box, and the points.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        sizes = (16, 16, 16, 32, 32, 64, 64, 64, 64, 64, 64, 64)
        # After the stem's own, two layers for each of five stages.
        self.layers = nn.ModuleList([Separable(16, 16), *(Separable(*sizes[i : i + 2]) for i in range(1, 11))])
        self.neck = nn.ModuleList([Separable(64, 64) for _ in STRIDES])
        self.heads = nn.ModuleList([nn.ModuleList([Separable(64, n) for _ in STRIDES]) for n in (1, 4, 1, 10)])

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        x, found = F.relu(self.stem(image)), []
        for number, layer in enumerate(self.layers):
            # A pooling before each stage but the second.
            if number in (1, 5, 7, 9):
                x = F.max_pool2d(x, 2)
            x = F.relu(layer(x))
            if number in (6, 8, 10):
                found.append(x)
        x = F.relu(self.neck[0](found[2]))
        features = [x]
        for layer, finer in ((self.neck[1], found[1]), (self.neck[2], found[0])):
            x = F.relu(layer(finer + x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)))
            features.insert(0, x)
        maps = []
        for stride, x in enumerate(features):
            classes, boxes, objects, points = (head[stride](x) for head in self.heads)  # type: ignore[index]
            maps.append(torch.cat([torch.sigmoid(classes), torch.sigmoid(objects), boxes, points], dim=1))
        return maps


class FaceFinder(nn.Module):
    """image uint8 [H, W, 3] -> boxes [64, 4], landmarks [64, 5, 2], scores [64], the best first.

    All in pixels of the image: boxes as left, top, width, height; landmarks as x and y of the eye at the left of the
    image, the other eye, the nose's tip, the mouth's corner at the left, the other corner. Where there are fewer faces,
    the rest is 0.

    Args:
        levels: scales to look at: the image, and halved ``levels - 1`` times.
        threshold: the least score of a face, 0 to 1.
    """

    def __init__(self, *, levels: int = LEVELS, threshold: float = THRESHOLD) -> None:
        super().__init__()
        self.network = YuNet()
        self.levels, self.threshold = levels, threshold

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        x = image.permute(2, 0, 1).flip(0)[None].float()
        multiple = STRIDES[-1] * 2 ** (self.levels - 1)
        rows, columns = ((size + multiple - 1) // multiple * multiple for size in x.shape[2:])
        x = F.pad(x, (0, columns - x.shape[3], 0, rows - x.shape[2]))
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for level in range(self.levels):
            if level:
                x = F.avg_pool2d(x, 2)
            for stride, maps in zip(STRIDES, self.network(x), strict=True):
                found.append(decoded(maps[0], stride * 2**level))
        scores, boxes, points = (torch.cat(values) for values in zip(*found, strict=True))
        return distinct(scores, boxes, points, threshold=self.threshold)


def decoded(maps: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the network says of the cells of one stride.

    Args:
        maps: float32 [16, rows, columns].
        stride: side of a cell in pixels of the image.

    Returns:
        Scores [cells], corners of the boxes [cells, 4] (left, top, right, bottom), points [cells, 5, 2]; in pixels.
    """
    columns = torch.arange(maps.shape[2], device=maps.device).float().expand(maps.shape[1:])
    rows = torch.arange(maps.shape[1], device=maps.device).float()[:, None].expand(maps.shape[1:])
    corner = torch.stack([columns, rows], dim=2).reshape(-1, 2)
    cells = maps.flatten(1).T
    scores = (cells[:, 0] * cells[:, 1]).sqrt()
    middle, half = corner + cells[:, 2:4], cells[:, 4:6].clamp(max=8).exp() / 2
    points = corner[:, None] + cells[:, 6:].reshape(-1, 5, 2)
    return scores, torch.cat([middle - half, middle + half], dim=1) * stride, points * stride


def distinct(scores: Tensor, boxes: Tensor, points: Tensor, *, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The best of all boxes, without those that overlap a better one.

    Args:
        scores: float32 [N].
        boxes: float32 [N, 4], corners.
        points: float32 [N, 5, 2]; those returned are means over the boxes that agree.
        threshold: the least score.

    Returns:
        As :class:`FaceFinder`.
    """
    scores, order = scores.topk(CANDIDATES)
    boxes, points = boxes[order], points[order]
    scores = scores * (scores >= threshold)
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    overlap = common / (area[:, None] + area[None] - common).clamp(min=1e-6)
    # Greedy suppression as a fixed point: a box is kept unless a kept one of a better score overlaps it.
    suppresses = (overlap > OVERLAP).float().triu(1)
    kept = (scores > 0).float()
    for _ in range(ROUNDS):
        kept = (kept @ suppresses == 0).float() * (scores > 0)
    agree = (overlap > SAME).float() * scores
    points = torch.einsum("ij,jkl->ikl", agree, points) / agree.sum(dim=1).clamp(min=1e-6)[:, None, None]
    scores, best = (scores * kept).topk(MOST)
    found = torch.cat([boxes[best, :2], boxes[best, 2:] - boxes[best, :2]], dim=1)
    shown = (scores > 0).float()
    return found * shown[:, None], points[best] * shown[:, None, None], scores
