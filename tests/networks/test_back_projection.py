"""Back-projection: what it keeps of the render, and what it takes from the image."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from networks.back_projection import back_projected


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """A render of noise, and a smooth image of another picture at a quarter of its side."""
    rng = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(2, 3, 4, 4, generator=rng), size=32, mode="bicubic")
    return 0.3 * torch.randn(2, 3, 128, 128, generator=rng), image


def test_each_step_shows_the_image_better(pair: tuple[Tensor, Tensor]) -> None:
    render, image = pair
    shown = [render, *(back_projected(render, image, steps=n) for n in (1, 2, 3))]
    apart = [float((F.avg_pool2d(picture, 4) - image).square().mean()) for picture in shown]
    assert apart[1] < 0.2 * apart[0]
    assert all(after < before for before, after in pairwise(apart))


@pytest.mark.parametrize("times", [2, 4])
def test_steps_add_what_is_still_wrong(pair: tuple[Tensor, Tensor], times: int) -> None:
    render, image = pair
    render = expected = render[:, :, : 32 * times, : 32 * times]
    for _ in range(3):
        wrong = image - F.avg_pool2d(expected, times)
        expected = expected + F.interpolate(wrong, scale_factor=float(times), mode="bilinear", align_corners=False)
    torch.testing.assert_close(back_projected(render, image, steps=3), expected)


def test_the_detail_stays_the_renders(pair: tuple[Tensor, Tensor]) -> None:
    render, image = pair

    def detail(picture: Tensor) -> Tensor:
        return picture - F.interpolate(F.avg_pool2d(picture, 4), scale_factor=4.0, mode="nearest")

    kept = torch.corrcoef(torch.stack([detail(x).flatten() for x in (render, back_projected(render, image))]))[0, 1]
    assert kept > 0.9


def test_a_render_that_shows_the_image_stays() -> None:
    image = torch.full((1, 3, 16, 16), 0.3)
    render = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(back_projected(render, image), render)


def test_sizes_that_do_not_fit_are_refused(pair: tuple[Tensor, Tensor]) -> None:
    render, image = pair
    with pytest.raises(AssertionError):
        back_projected(render[:, :, :126, :126], image)
