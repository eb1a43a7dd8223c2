"""Frozen convolutions: the same numbers and gradients, with less kept for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sidecar.optimise.frozen import FrozenConv2d, freeze


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"padding": 1, "groups": 4}, {"bias": False}])
def test_a_frozen_convolution_has_the_same_gradient(options: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3, **options), nn.LeakyReLU(0.2)).requires_grad_(requires_grad=False)
    x, y = (torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    expected = network(x)
    expected.square().sum().backward()
    names = list(network.state_dict())
    freeze(network)
    assert isinstance(network[0], FrozenConv2d)
    assert list(network.state_dict()) == names
    found = network(y)
    found.square().sum().backward()
    assert torch.equal(found, expected)
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(y.grad, x.grad)


def test_it_keeps_no_copy_of_its_input() -> None:
    network = nn.Conv2d(3, 3, 1).requires_grad_(requires_grad=False)
    freeze(network)
    x, kept = torch.randn(1, 3, 64, 64, requires_grad=True), list[Tensor]()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        network(x)
    assert [t.shape for t in kept] == [network.weight.shape]
