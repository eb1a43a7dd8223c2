"""How heads turn is found from samples that turn."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.change.filters import blurred, warped
from client.change.yaw import FILE, SIDE
from client.files import tensors
from export.directions.cards import write_turning
from export.directions.scorers import Scorer, Scores
from export.directions.turning import STRENGTHS, Pictures, turned_samples, turning
from judges.faces import Image8
from networks.generator_file import Generator

UNIT = 0.2


def motion(yaw: float) -> np.ndarray:
    """A bulge in the middle that moves against its surroundings, and widens a little: float32 [128, 128, 2]."""
    places = (np.arange(128) + 0.5) / 128 - 0.5
    across, down = np.meshgrid(places, places)
    bulge = np.exp(-(across**2 + down**2) / (2 * 0.15**2))
    return np.stack([0.15 * yaw * (0.3 - bulge) + 0.4 * yaw**2 * across * bulge, 0 * across], -1).astype(np.float32)


def samples(count: int) -> Pictures:
    """Patterns that turn by :func:`motion`."""
    rng, strengths = np.random.default_rng(3), [*(-s for s in reversed(STRENGTHS)), 0.0, *STRENGTHS]
    found = []
    for _ in range(count):
        rough = blurred(rng.normal(size=(128, 128)).astype(np.float32), 2.5)
        front = np.repeat((128 + 50 * rough / rough.std())[..., None], 3, axis=2).astype(np.float32)
        found.append(np.stack([warped(front, 128 * motion(s * UNIT)) for s in strengths]))
    return np.stack(found).clip(0, 255).astype(np.uint8)


def test_the_motion_that_samples_share_is_found() -> None:
    odd, even = turning(samples(6), unit=UNIT)
    assert odd.shape == even.shape == (SIDE, SIDE, 2)
    row = SIDE // 2
    assert odd[row, SIDE // 2, 0] == pytest.approx(0.15 * (0.3 - 1), abs=0.02)
    assert odd[row, 12, 0] == pytest.approx(0.15 * (0.3 - np.exp(-(0.305**2) / 0.045)), abs=0.02)
    assert even[row, SIDE // 2 + 10, 0] == pytest.approx(0.4 * 0.164 * np.exp(-(0.164**2) / 0.045), abs=0.02)
    assert np.abs(odd[..., 1]).max() < 0.01


def test_mirrored_heads_turn_to_the_other_side() -> None:
    odd, even = turning(samples(2), unit=UNIT)
    sign = np.array([-1, 1], np.float32)
    np.testing.assert_allclose(odd, -(odd[:, ::-1] * sign), atol=1e-5)
    np.testing.assert_allclose(even, even[:, ::-1] * sign, atol=1e-5)


class Drawn(nn.Module):
    """Draws a flat picture whose level is the latent's first number."""

    num_styles = 4

    def forward(self, w_plus: Tensor) -> Tensor:
        return w_plus[:, :1, :1, None].expand(-1, 3, 256, 256) / 100


class Made:
    """A generator whose latents are 20 times z."""

    def __init__(self) -> None:
        self.synthesis = Drawn()

    def mapping(self, z: Tensor, psi: float) -> Tensor:
        return 20 * z * psi


def test_samples_face_the_camera_before_they_turn() -> None:
    asked = []

    def scorer(pixels: Image8) -> Scores | None:
        yaw = (float(pixels[0, 0, 0]) / 127.5 - 1) * 100 / 50
        asked.append(yaw)
        return None if len(asked) == 3 else Scores(0.0, 0.0, yaw, 0.0)

    step = torch.zeros(512)
    step[0] = 50 * UNIT
    found = turned_samples(cast("Generator", Made()), cast("Scorer", scorer), step, unit=UNIT, count=3)
    assert found.shape == (3, 2 * len(STRENGTHS) + 1, 128, 128, 3)
    levels = found[:, :, 0, 0, 0].astype(float)
    np.testing.assert_allclose(levels[:, len(STRENGTHS)], 127.5, atol=1.5)
    np.testing.assert_allclose(np.diff(levels[:, len(STRENGTHS) :], axis=1), 127.5 * 0.5 * 10 / 100, atol=1.5)
    # Of the second sample no face is found; a fourth takes its place.
    assert len(asked) == 2 + 1 + 2 + 2


def test_what_is_written_is_what_ships(tmp_path: Path) -> None:
    field = np.zeros((SIDE, SIDE, 2), np.float32)
    write_turning(tmp_path / "it.safetensors", field, field + 1, samples=7, generator="0123456789abcdef")
    ours, theirs = (tensors.load(path, limit=2**20, error=ValueError) for path in (tmp_path / "it.safetensors", FILE))  # type: ignore[arg-type]
    assert {name: tensor.shape for name, tensor in ours[0].items()} == {n: t.shape for n, t in theirs[0].items()}
    assert ours[1].keys() == theirs[1].keys()
    assert (tmp_path / "it.md").read_text().startswith("# How heads turn")
    assert FILE.with_suffix(".md").read_text().startswith("# How heads turn")
