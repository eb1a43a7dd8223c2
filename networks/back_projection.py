"""The picture of two codes: what a faithful one shows at 256 px, with the detail of a clean render of the other.

A faithful code shows the person at 256 px. What the generator's last layers add below that is scribbles: no loss of the
code's training saw more, and the code lies far from the generator's own. The render of the editable code is clean, and
another person. Iterated back-projection (Irani and Peleg, 1991) keeps its detail, and makes it show the faithful image
when it is reduced.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 2  # one is softer, and a third gains little


def back_projected(render: Tensor, image: Tensor, *, steps: int = STEPS) -> Tensor:
    """A render, corrected towards an image of a lower resolution.

    Args:
        render: float32 [B, 3, n S, n S], n even.
        image: float32 [B, 3, S, S].
        steps: how often what is wrong at the lower resolution is added, once or more.

    Returns:
        float32 [B, 3, n S, n S].
    """
    times, rest = divmod(render.shape[-1], image.shape[-1])
    assert rest == 0 and times % 2 == 0 and render.shape[:2] == image.shape[:2]
    wrong = image - F.avg_pool2d(render, times)
    added = wrong
    for _ in range(steps - 1):
        wrong = wrong - seen_again(wrong)
        added = added + wrong
    return render + F.interpolate(added, scale_factor=float(times), mode="bilinear", align_corners=False)


def seen_again(image: Tensor) -> Tensor:
    """The area average of a bilinear enlargement, by any even factor: [B, C, S, S] -> the same, far cheaper."""
    channels = image.shape[1]
    row = torch.tensor([0.125, 0.75, 0.125], dtype=image.dtype, device=image.device)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, torch.outer(row, row).expand(channels, 1, 3, 3), groups=channels)
