"""The picture head: where it starts, what it sees, and that it paints crops as it paints the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from networks.looks_file import load_picture_head, load_short_head, save_picture_head
from networks.picture_head import PictureHead
from networks.short_head import ShortHead
from networks.weights_file import WeightsError

GENERATOR = "0123456789abcdef"
Seen = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Features, late styles and a render."""
    rng = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 512, 64, 64, generator=rng),
        torch.randn(2, 7, 512, generator=rng),
        torch.rand(2, 3, 256, 256, generator=rng) * 2 - 1,
    )


@pytest.fixture(scope="module")
def head() -> PictureHead:
    torch.manual_seed(1)
    return PictureHead().eval()


@torch.no_grad()
def test_it_starts_as_the_short_head(seen: Seen) -> None:
    torch.manual_seed(2)
    short, head = ShortHead().eval(), PictureHead().eval()
    features, late, render = seen
    painted = short(features, late)
    before = (head(*seen) - painted).abs().mean()
    head.start_from(short)
    assert (head(*seen) - painted).abs().mean() < 0.1 * before
    assert torch.equal(head(features, late, -render), head(*seen))


def test_all_of_it_learns_from_there(seen: Seen) -> None:
    head = PictureHead()
    head.start_from(ShortHead())
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(3):  # a step fills the layers that start at zero, the next ones reach those before them
        optimiser.zero_grad()
        head(*(part[:1] for part in seen)).square().mean().backward()
        optimiser.step()
    idle = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(name.startswith("retouch.") for name in idle)


@torch.no_grad()
def test_it_sees_the_render(head: PictureHead, seen: Seen) -> None:
    features, late, render = seen
    assert float((head(features, late, -render) - head(*seen)).abs().mean()) > 0.01


@torch.no_grad()
def test_a_crop_is_painted_as_in_the_whole(head: PictureHead, seen: Seen) -> None:
    features, late, render = seen
    whole = head(*seen)
    crop = head(features[:, :, 16:48, 8:40], late, render[:, :, 64:192, 32:160])
    assert crop.shape == (2, 3, 128, 128)
    inside = slice(48, 80)  # beyond that the crop's border is seen
    torch.testing.assert_close(crop[:, :, inside, inside], whole[:, :, 112:144, 80:112], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_file_holds_it(head: PictureHead, seen: Seen, tmp_path: Path) -> None:
    path = tmp_path / "picture_head16.safetensors"
    save_picture_head(head, path, generator=GENERATOR, training="an hour")
    torch.testing.assert_close(load_picture_head(path, generator=GENERATOR)(*seen), head(*seen), atol=0.02, rtol=0.02)
    with pytest.raises(WeightsError, match=f"trained for generator {GENERATOR}, not other"):
        load_picture_head(path, generator="other")
    with pytest.raises(WeightsError, match="expected a network of kind short_head, got picture_head"):
        load_short_head(path)


def test_a_render_of_another_size_is_refused(head: PictureHead, seen: Seen) -> None:
    features, late, render = seen
    with pytest.raises(AssertionError):
        head(features, late, render[:, :, :128, :128])
