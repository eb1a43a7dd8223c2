"""The picture of two codes: what a faithful one shows at 256 px, with the detail of a clean render of the other.

A faithful code shows the person at 256 px. What the generator's last layers add below that is scribbles: no loss of the
code's training saw more, and the code lies far from the generator's own. The render of the editable code is clean, and
another person. Iterated back-projection (Irani and Peleg, 1991) keeps its detail, and makes it show the faithful image
when it is reduced.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

STEPS = 2  # one is softer, and a third gains little


def back_projected(render: Tensor, image: Tensor, *, steps: int = STEPS) -> Tensor:
    """A render, corrected towards an image of a lower resolution.

    Args:
        render: float32 [B, 3, n S, n S].
        image: float32 [B, 3, S, S].
        steps: how often what is wrong at the lower resolution is added.

    Returns:
        float32 [B, 3, n S, n S].
    """
    times, rest = divmod(render.shape[-1], image.shape[-1])
    assert rest == 0 and render.shape[:2] == image.shape[:2]
    for _ in range(steps):
        wrong = image - F.avg_pool2d(render, times)
        render = render + F.interpolate(wrong, scale_factor=float(times), mode="bilinear", align_corners=False)
    return render
