"""Samples to train on: what they are made of, and how they are moved and tinted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from assets.paths import generator_file
from export.generator import load_generator
from export.samples import latents, render, shard_path, shards, styles
from export.training.moves import MoveRanges, draw_moves, tint
from networks.similarity import IDENTITY, move

pytestmark = pytest.mark.skipif(not generator_file("ffhq").exists(), reason="the generator is not built: make invert")


def test_the_identity_leaves_a_map_alone_and_a_shift_moves_it() -> None:
    f = torch.randn(2, 3, 16, 16)
    assert torch.equal(move(f, IDENTITY.expand(2, -1, -1)), f)
    shift = IDENTITY.clone()
    shift[0, 2] = 2 * 4 / 16  # four cells, in the [-1, 1] coordinates of affine_grid
    assert torch.allclose(move(f, shift.expand(2, -1, -1))[..., :12], f[..., 4:], atol=1e-5)


def test_moves_stay_in_their_ranges() -> None:
    theta = draw_moves(
        500, moves=MoveRanges(rotation=10, shift=0.1, zoom=(0.5, 2.0)), rng=torch.Generator().manual_seed(0)
    )
    scale = theta[:, :, :2].det().sqrt()
    angle = torch.atan2(theta[:, 1, 0], theta[:, 0, 0]).rad2deg()
    assert 0.49 < scale.min() < 0.6
    assert 1.8 < scale.max() < 2.01
    assert 8 < angle.abs().max() <= 10.001
    assert 0.15 < theta[:, :, 2].abs().max() <= 0.2


def test_a_tint_changes_colours_a_little_and_nothing_else() -> None:
    image = torch.rand(20, 3, 8, 8) - 0.5
    tinted = tint(image, rng=torch.Generator().manual_seed(0))
    assert 0.02 < (tinted - image).abs().mean() < 0.2
    for before, after in zip(image.flatten(0, 1), tinted.flatten(0, 1), strict=True):
        correlation = torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1]
        assert correlation > 0.999
    assert tint(torch.ones(20, 3, 2, 2), rng=torch.Generator()).max() <= 1


def test_latents_depend_on_the_shard_alone() -> None:
    generator = load_generator("ffhq")
    first, again, other = (latents("train", n, generator) for n in (0, 0, 1))
    assert torch.equal(first["w"], again["w"])
    assert torch.equal(first["layers"], again["layers"])
    assert not torch.equal(first["w"], other["w"])
    assert not torch.equal(latents("heldout", 0, generator)["w"], first["w"])


def test_styles_are_mixed_in_training_samples_alone() -> None:
    generator = load_generator("ffhq")
    layers = latents("train", 0, generator)["layers"]
    assert (layers.diff(dim=1) >= 0).all()
    for count, share in ((1, 0.25), (2, 0.25), (3, 0.2)):
        assert (layers.amax(dim=1) + 1 == count).float().mean() >= share
    held = latents("heldout", 0, generator)
    assert held["layers"].max() == latents("unmixed", 0, generator)["layers"].max() == 0
    w_plus = styles(**held)
    assert torch.equal(w_plus[:, 0], w_plus[:, 15])
    mixed = styles(torch.arange(3.0).view(1, 3, 1).expand(1, 3, 512), torch.tensor([[0] * 5 + [1] * 9 + [2] * 2]))
    assert mixed[0, :, 7].tolist() == [0.0] * 5 + [1.0] * 9 + [2.0] * 2


@pytest.mark.slow
def test_rendered_samples_are_what_their_latents_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.samples.SHARD", 4)
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    generator = load_generator("ffhq")
    render(generator, tmp_path, split="train", shards=range(1))
    before = shard_path(tmp_path, "train", 0).stat().st_mtime_ns
    render(generator, tmp_path, split="train", shards=range(1))
    assert shard_path(tmp_path, "train", 0).stat().st_mtime_ns == before
    (shard,) = shards(tmp_path, "train")
    assert shard["image"].shape == (4, 256, 256, 3)
    assert shard["layers"][2].max() > 0
    with torch.inference_mode():
        image = generator.synthesis(styles(shard["w"], shard["layers"])[2:3])
    expected = ((F.avg_pool2d(image, 4).clamp(-1, 1) + 1) * 127.5)[0].permute(1, 2, 0)
    error = (expected - shard["image"][2].float()).square().mean()
    assert 10 * math.log10(255**2 / error) > 35  # bfloat16 against float32
