"""Codes that are drawn to the encoder's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from networks.drawn_looks import LENGTH, DrawnLooks
from networks.looks import CodeLooks


class Zeros(nn.Module):
    """An encoder that finds zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.input_size, self.seen = 128, (0, 0)

    def forward(self, image: Tensor) -> Tensor:
        self.seen = tuple(image.shape[2:])
        return torch.zeros(len(image), 512, 16, 16)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> DrawnLooks:
    """Looks that find styles of lengths 0.2, 0.4 and 0.8, and an encoder that finds zeros."""
    looks = CodeLooks()
    looks.w_mean.fill_(3)
    looks.w_std.fill_(2)
    lengths = torch.tensor([0.2, 0.4, 0.8])
    w = looks.denormalise_w(lengths[:, None, None].expand(3, 12, 512))
    monkeypatch.setattr(looks, "forward", lambda _photo, _paint: (torch.ones(3, 512, 16, 16), w))
    return DrawnLooks(looks, Zeros())  # type: ignore[arg-type]


def test_codes_with_long_styles_are_drawn_to_the_encoders(drawn: DrawnLooks) -> None:
    f, w = drawn(torch.zeros(3, 3, 256, 256), lambda _f, _w: torch.zeros(3, 3, 256, 256))
    for number, kept in enumerate((1.0, 1.0, 0.5)):
        torch.testing.assert_close(f[number], torch.full((512, 16, 16), kept))
    found = drawn.looks.normalise_w(w).square().mean(2).sqrt()
    torch.testing.assert_close(found, torch.tensor([0.2, LENGTH, LENGTH])[:, None].expand(3, 12))
    assert drawn.encoder.seen == (128, 128)  # type: ignore[comparison-overlap]


def test_a_code_without_styles_is_left(drawn: DrawnLooks, monkeypatch: pytest.MonkeyPatch) -> None:
    still = torch.full((3, 12, 512), 3.0)
    monkeypatch.setattr(drawn.looks, "forward", lambda _photo, _paint: (torch.ones(3, 512, 16, 16), still))
    f, w = drawn(torch.zeros(3, 3, 256, 256), lambda _f, _w: torch.zeros(3, 3, 256, 256))
    assert f.isfinite().all() and w.isfinite().all()
    assert (f == 1).all()
