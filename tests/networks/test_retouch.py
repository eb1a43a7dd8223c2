"""The retouch: where it starts, what it sees, and that it makes crops as it makes the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from networks.back_projection import back_projected
from networks.retouch import Retouch


@pytest.fixture
def seen() -> tuple[Tensor, Tensor]:
    """A render and an image."""
    rng = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 128, 128, generator=rng) * 2 - 1, torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1


@pytest.fixture
def retouch() -> Retouch:
    torch.manual_seed(1)
    network = Retouch()
    torch.nn.init.normal_(network.correct.weight, std=0.1)
    return network.eval()


@torch.no_grad()
def test_it_starts_as_back_projection(seen: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(Retouch()(*seen), back_projected(*seen))


def test_all_of_it_learns_from_there(seen: tuple[Tensor, Tensor]) -> None:
    network = Retouch()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # the first step fills the layer that starts at zero
        optimiser.zero_grad()
        network(*seen).square().mean().backward()
        optimiser.step()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_it_corrects_light_and_not_colour(seen: tuple[Tensor, Tensor], retouch: Retouch) -> None:
    change = retouch(*seen) - back_projected(*seen)
    assert float(change.abs().mean()) > 0.01
    torch.testing.assert_close(change, change[:, :1].expand_as(change), atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_the_image_shows_stays(seen: tuple[Tensor, Tensor], retouch: Retouch) -> None:
    torch.nn.init.normal_(retouch.correct.bias, std=0.1)  # type: ignore[arg-type]
    change = retouch(*seen) - back_projected(*seen)
    assert float(change.abs().mean()) > 0.01
    assert float(F.avg_pool2d(change, 4).abs().max()) < 1e-5


@torch.no_grad()
def test_it_sees_the_detail_the_image_and_how_far_the_render_is(seen: tuple[Tensor, Tensor], retouch: Retouch) -> None:
    render, image = seen
    before = retouch(*seen) - back_projected(*seen)
    other = render - 2 * (render - F.interpolate(F.avg_pool2d(render, 4), scale_factor=4.0))
    for one, two in ((other, image), (render, image + 0.3), (render + 0.3, image)):
        after = retouch(one, two) - back_projected(one, two)
        assert float((after - before).abs().mean()) > 1e-3


@torch.no_grad()
def test_a_crop_is_made_as_in_the_whole(seen: tuple[Tensor, Tensor], retouch: Retouch) -> None:
    render, image = seen
    whole = retouch(render, image)
    crop = retouch(render[..., 24:120, 8:104], image[..., 6:30, 2:26])
    inside = slice(32, 64)  # beyond that the crop's border is seen
    torch.testing.assert_close(crop[..., inside, inside], whole[..., 56:88, 40:72], atol=1e-4, rtol=1e-4)


def test_an_image_of_another_size_is_refused(seen: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(AssertionError):
        Retouch()(seen[0], seen[1][..., :16, :16])
