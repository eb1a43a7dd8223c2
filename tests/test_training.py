"""Samples and training: determinism, resumption, and the measure of the encoder's error."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from export.__main__ import main as export_main
from export.generator import load_generator
from export.paths import generator_file
from export.samples import IDENTITY, Moves, draw_moves, features, latents, move, render, shard_path, shards
from export.train import Recipe, Trainer, TrainingError, batches, heldout_error, load_samples
from networks.encoder import Encoder
from networks.encoder_file import encoder_metadata

pytestmark = pytest.mark.skipif(not generator_file("ffhq").exists(), reason="the generator is not built: make invert")


def recipe(**changes: object) -> Recipe:
    options: dict[str, object] = {
        "domain": "ffhq", "cut": 8, "body": "residual", "loss": "f", "steps": 6, "batch": 4,
        "learning_rate": 1e-3, "perceptual_weight": 1.0, "seed": 0,
    }  # fmt: skip
    return Recipe(**{**options, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with true latents and made-up images: what training reads, without the cost of rendering."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("samples")
    generator = load_generator("ffhq")
    for split in ("train", "heldout"):
        tensors = {k: v[:16].clone() for k, v in latents(split, 0, generator).items()}
        f = features(generator, tensors["w_coarse"], tensors["theta"], cut=8)
        image = F.interpolate(f[:, :3], size=256, mode="bilinear").mul(40).add(128).clamp(0, 255).to(torch.uint8)
        tensors["image"] = image.permute(0, 2, 3, 1).contiguous()
        save_file(tensors, shard_path(root, split, 0))
    return root


def trainer(folder: Path, checkpoints: Path, **changes: object) -> Trainer:
    return Trainer(recipe(**changes), folder=checkpoints, samples=folder, minutes=math.inf, device=torch.device("cpu"))


def test_the_identity_leaves_a_map_alone_and_a_shift_moves_it() -> None:
    f = torch.randn(2, 3, 16, 16)
    assert torch.equal(move(f, IDENTITY.expand(2, -1, -1)), f)
    shift = IDENTITY.clone()
    shift[0, 2] = 2 * 4 / 16  # four cells, in the [-1, 1] coordinates of affine_grid
    assert torch.allclose(move(f, shift.expand(2, -1, -1))[..., :12], f[..., 4:], atol=1e-5)


def test_moves_stay_in_their_ranges() -> None:
    theta = draw_moves(500, moves=Moves(rotation=10, shift=0.1, zoom=(0.5, 2.0)), rng=torch.Generator().manual_seed(0))
    scale = theta[:, :, :2].det().sqrt()
    angle = torch.atan2(theta[:, 1, 0], theta[:, 0, 0]).rad2deg()
    assert 0.49 < scale.min() < 0.6
    assert 1.8 < scale.max() < 2.01
    assert 8 < angle.abs().max() <= 10.001
    assert 0.15 < theta[:, :, 2].abs().max() <= 0.2


def test_latents_depend_on_the_shard_alone() -> None:
    generator = load_generator("ffhq")
    first, again, other = (latents("train", n, generator) for n in (0, 0, 1))
    assert torch.equal(first["w_coarse"], again["w_coarse"])
    assert not torch.equal(first["w_coarse"], other["w_coarse"])
    still = (first["theta"] == IDENTITY).all(dim=(1, 2))
    assert still.sum() == len(still) / 2
    held = latents("heldout", 0, generator)
    assert torch.equal(held["w_coarse"], held["w_fine"])
    assert not torch.equal(held["w_coarse"], first["w_coarse"])


def test_rendered_samples_are_what_their_latents_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.samples.SHARD", 4)
    monkeypatch.setattr("torch.compile", lambda function: function)
    generator = load_generator("ffhq")
    render(generator, tmp_path, split="train", shards=range(1))
    before = shard_path(tmp_path, "train", 0).stat().st_mtime_ns
    render(generator, tmp_path, split="train", shards=range(1))
    assert shard_path(tmp_path, "train", 0).stat().st_mtime_ns == before
    (shard,) = shards(tmp_path, "train")
    assert shard["image"].shape == (4, 256, 256, 3)
    f = features(generator, shard["w_coarse"], shard["theta"], cut=16)
    with torch.inference_mode():
        image = generator.synthesis.fine(f[3:], shard["w_fine"][3:, None].expand(-1, 12, -1))
    expected = ((F.avg_pool2d(image, 4).clamp(-1, 1) + 1) * 127.5)[0].permute(1, 2, 0)
    error = (expected - shard["image"][3].float()).square().mean()
    assert 10 * math.log10(255**2 / error) > 35  # bfloat16 against float32


def test_batches_continue_where_they_stopped() -> None:
    def take(start: int, count: int) -> list[list[int]]:
        stream = batches(10, batch=3, seed=1, start=start)
        return [next(stream).tolist() for _ in range(count)]

    whole = take(0, 9)
    assert take(4, 5) == whole[4:]
    assert whole[:3] != whole[3:6]
    for epoch in (whole[:3], whole[3:6], whole[6:]):
        assert len({index for batch in epoch for index in batch}) == 9


def test_an_interrupted_run_ends_like_an_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    whole = trainer(folder, tmp_path / "whole")
    whole.fit(every=3)
    assert [p["step"] for p in whole.history] == [3, 6]

    class Killed(Exception):
        pass

    cut_short = trainer(folder, tmp_path / "parts")
    save = cut_short.save

    def save_and_die() -> None:
        save()
        raise Killed

    cut_short.save = save_and_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        cut_short.fit(every=3)
    resumed = trainer(folder, tmp_path / "parts")
    resumed.resume()
    assert resumed.step == 3
    resumed.fit(every=3)
    for ours, theirs in zip(resumed.encoder.state_dict().values(), whole.encoder.state_dict().values(), strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=1e-6)


def test_training_learns(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path, steps=60)
    run.fit(every=20)
    losses = [point["loss"] for point in run.history]
    assert losses[-1] < 0.6 * losses[0]


def test_a_checkpoint_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    trainer(folder, tmp_path).save()
    with pytest.raises(TrainingError, match="other options"):
        trainer(folder, tmp_path, seed=1).resume()


@pytest.mark.parametrize(("option", "value"), [("steps", 0), ("batch", 0), ("learning_rate", 0.0)])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(TrainingError, match="must be above 0"):
        recipe(**{option: value})


def test_a_batch_larger_than_the_data_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="16 samples, fewer than a batch of 17"):
        trainer(folder, tmp_path, batch=17)


def test_stages_are_told_in_order(folder: Path, tmp_path: Path) -> None:
    def train(*extra: str) -> str:
        arguments = ["train", "encoder", "--cut", "8", "--steps", "2", "--batch", "4", "--samples", str(folder)]
        assert export_main([*arguments, *extra]) == 0
        return encoder_metadata(tmp_path / "a.safetensors")["training"]

    first = ["--folder", str(tmp_path / "1"), "--out", str(tmp_path / "a.safetensors")]
    second = [*first, "--start", str(tmp_path / "a.safetensors"), "--folder", str(tmp_path / "2")]
    assert train(*first).count("loss `f`") == 1
    assert train(*second).count("loss `f`") == 2
    assert "stage 2" in (tmp_path / "a.md").read_text()
    with pytest.raises(AssertionError):  # the start is another file now
        train(*second)


def test_no_samples_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="python -m export samples"):
        load_samples(tmp_path, "train", size=64)


def test_the_error_is_one_for_the_mean_and_zero_for_the_truth(folder: Path) -> None:
    generator = load_generator("ffhq")
    samples = load_samples(folder, "heldout", size=64)
    truth = features(generator, samples.w_coarse, samples.theta, cut=8)
    plain = truth[(samples.theta == IDENTITY).all(dim=(1, 2))]
    encoder = Encoder(body="residual", cut=8)
    encoder.f_std.copy_(plain.std(dim=(0, 2, 3)))
    encoder.f_mean.copy_(plain.mean(dim=(0, 2, 3)))

    class Answers(torch.nn.Module):
        def __init__(self, f: torch.Tensor) -> None:
            super().__init__()
            self.f = f

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return encoder.normalise(self.f.expand(len(image), -1, -1, -1))

    encoder.body = Answers(plain.mean(dim=(0, 2, 3))[None, :, None, None].expand(1, -1, 8, 8))
    assert heldout_error(encoder, generator, samples)["error"] == pytest.approx(1.0, rel=1e-3)
    encoder.body = Answers(plain.mean(dim=0, keepdim=True))
    assert heldout_error(encoder, generator, samples)["residual"] == pytest.approx(1.0, rel=1e-3)
    encoder.body = Answers(truth)
    assert heldout_error(encoder, generator, samples)["error"] == pytest.approx(0.0, abs=1e-6)


def test_the_image_loss_is_least_for_the_truth() -> None:
    from export.image_loss import ImageLoss

    generator = load_generator("ffhq")
    loss = ImageLoss(generator, perceptual_weight=1.0, device=torch.device("cpu"))
    data = latents("heldout", 0, generator)
    f = features(generator, data["w_coarse"][:1], data["theta"][:1], cut=8)
    w = data["w_fine"][:1]
    with torch.no_grad():
        target = loss.render(f, w)
    wrong = (0.5 * f).requires_grad_()
    assert loss(f, w, target) < 1e-4
    value = loss(wrong, w, target)
    value.backward()
    assert value > 0.01
    assert wrong.grad is not None
    assert wrong.grad.abs().sum() > 0
