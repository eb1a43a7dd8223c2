"""The loss of local spectra: textures count as strong as they are, wherever their lines lie."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from export.training.picture.spectrum import Spectra

SIDE = 96


def wave(down: float, across: float, *, amplitude: float = 0.1) -> Tensor:
    """A wave in all colours, float32 [1, 3, S, S]; frequencies in cycles in 256 px."""
    at = torch.arange(SIDE) * 2 * math.pi / 256
    return (amplitude * torch.cos(down * at[:, None] + across * at)).expand(1, 3, -1, -1)


@pytest.fixture(scope="module")
def spectra() -> Spectra:
    return Spectra()


def test_where_the_lines_lie_does_not_matter(spectra: Spectra) -> None:
    texture = wave(32, 32)
    moved = texture.roll(4, 3)
    assert float((texture - moved).abs().mean()) > 0.1
    assert float(spectra(texture, texture)) == 0
    assert float(spectra(texture, moved)) < 0.02 * float(spectra(texture, torch.zeros_like(texture)))


@pytest.mark.parametrize("other", [wave(32, -32), wave(64, 0), wave(32, 96), wave(32, 32, amplitude=0.2)])
def test_another_texture_does(spectra: Spectra, other: Tensor) -> None:
    texture, nothing = wave(32, 32), torch.zeros(1, 3, SIDE, SIDE)
    assert float(spectra(texture, other)) > 0.9 * float(spectra(nothing, texture))


def test_colours_count_as_light_does(spectra: Spectra) -> None:
    texture, nothing = wave(32, 32), torch.zeros(1, 3, SIDE, SIDE)
    stripes = texture * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    assert float(spectra(stripes, nothing)) > 0.8 * float(spectra(texture, nothing))


def test_the_light_of_a_place_does_not(spectra: Spectra) -> None:
    texture = wave(20, 50)
    torch.testing.assert_close(spectra(texture + 0.3, texture), torch.zeros(1), atol=1e-5, rtol=0)


def test_each_picture_has_its_own(spectra: Spectra) -> None:
    both = torch.cat([wave(32, 32), wave(10, 60)])
    found = spectra(both, torch.cat([wave(32, 32), wave(60, 10)]))
    assert found.shape == (2,)
    assert found[0] == 0 and found[1] > 0
    torch.testing.assert_close(found[1:], spectra(both[1:], wave(60, 10)))


def test_its_gradient_takes_a_texture_away(spectra: Spectra) -> None:
    image = wave(32, -96).clone().requires_grad_()
    (slope,) = torch.autograd.grad(spectra(image, torch.zeros_like(image)).sum(), image)
    inside = (..., slice(16, -16), slice(16, -16))
    both = torch.stack([image.detach()[inside].flatten(), slope[inside].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.7


def test_a_texture_too_many_is_worse_than_one_too_few(spectra: Spectra) -> None:
    texture, nothing = wave(32, 32), torch.zeros(1, 3, SIDE, SIDE)
    assert float(spectra(texture, nothing)) > 2 * float(spectra(nothing, texture))
