from __future__ import annotations

import math

import torch

from networks.similarity import IDENTITY, compose, inverse, move, resample, square


def turned(degrees: float, zoom: float = 1.0, x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    c, s = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    return torch.tensor([[[c, -s, x], [s, c, y]]])


def test_the_inverse_undoes_a_transform() -> None:
    theta = torch.cat([turned(20, 0.7, 0.2, -0.3), turned(-75, 1.4, -0.5, 0.1)])
    assert torch.allclose(compose(theta, inverse(theta)), IDENTITY.expand(2, -1, -1), atol=1e-6)
    assert torch.allclose(inverse(theta), torch.linalg.inv(square(theta))[:, :2], atol=1e-6)


def test_composing_is_a_matrix_product() -> None:
    a, b = turned(10, 1.2, 0.1, 0.2), turned(-33, 0.6, 0.4, 0.0)
    assert torch.allclose(compose(a, b), (square(a) @ square(b))[:, :2], atol=1e-6)
    assert compose(a, b.expand(3, -1, -1)).shape == (3, 2, 3)


def test_composed_transforms_move_as_one_after_the_other() -> None:
    # A smooth picture, so that resampling twice loses little.
    rows = torch.linspace(-1, 1, 64)
    x = torch.stack([torch.cos(2 * rows)[:, None] * torch.sin(rows)[None]])[None]
    a, b = turned(15, 1.1), turned(-20, 1.2)
    inner = slice(20, 44)
    once, twice = move(x, compose(a, b)), move(move(x, a), b)
    assert torch.allclose(once[..., inner, inner], twice[..., inner, inner], atol=5e-3)


def test_the_identity_leaves_a_map_exactly_alone() -> None:
    x = torch.randn(2, 3, 16, 16)
    theta = torch.cat([IDENTITY[None], turned(5)])
    moved = move(x, theta)
    assert torch.equal(moved[0], x[0])
    assert not torch.equal(moved[1], x[1])


def test_a_quarter_turn_is_exact() -> None:
    x = torch.randn(1, 1, 8, 8)
    assert torch.allclose(resample(x, turned(90), (8, 8)), x.rot90(1, (2, 3)), atol=1e-5)
