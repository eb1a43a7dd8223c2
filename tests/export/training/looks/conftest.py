"""A small world to train in: a random generator, painted cheaply, and faces of noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.training.looks.faces import Faces
from networks import looks
from networks.generator_file import Generator
from networks.looks import LookShape
from networks.mapping import MappingNetwork
from networks.mobilestylegan import MobileStyleGAN
from tests.export.training.looks.test_faces import POINTS, picture, png


@pytest.fixture(autouse=True)
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks of as many blocks as the real ones, but a quarter of their channels."""
    for name in ("FIRST", "SECOND"):
        shape: LookShape = getattr(looks, name)
        a, b, c = (width // 4 for width in shape.widths)
        monkeypatch.setattr(looks, name, replace(shape, widths=(a, b, c)))


@pytest.fixture(scope="session")
def generator() -> Generator:
    torch.manual_seed(0)
    mapping, synthesis = MappingNetwork(), MobileStyleGAN()
    for network in (mapping, synthesis):
        network.eval().requires_grad_(requires_grad=False)
    return Generator(mapping=mapping, synthesis=synthesis, fingerprint="0" * 16)


@pytest.fixture
def faces() -> Faces:
    flat = [f"{v}" for point in POINTS for v in point]
    rows: Iterable[list[str]] = [[f"{n}", *flat] for n in range(12)]
    return Faces("noise", lambda name: png(picture(int(name))), rows)


def cheap_paint(f: Tensor, w: Tensor) -> Tensor:
    """A picture [B, 3, 256, 256] that depends on all of f, and on w."""
    colours = f[:, :510].unflatten(1, (-1, 3)).mean(1)
    image = torch.tanh(colours + w.mean((1, 2))[:, None, None, None])
    return F.interpolate(image, size=256, mode="bilinear")


class Flat(nn.Module):
    """A perceptual distance that is the pixels'."""

    mean = torch.zeros(1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean((1, 2, 3))


class Nobody(nn.Module):
    """Persons that differ as their pixels do."""

    def forward(self, image: Tensor, target: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002
        return (image - target.detach()).square().mean((1, 2, 3))
