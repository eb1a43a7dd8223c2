"""The retouch's training: its crops, that it learns and the rest stays, and that it goes on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export.serve.looks import LooksGraph, PictureGraph
from export.training.picture.crops import KINDS, NAMES, SHARD, STORED, Crops, corners, crops_path, moved
from export.training.picture.retouch import PLAN, RetouchTrainer
from networks.generator_file import Generator
from networks.perceptual import STLPIPS
from networks.picture_head import PictureHead
from networks.similarity import IDENTITY

CPU = torch.device("cpu")
FEW = replace(PLAN, minutes=1e6, steps=16, batch=2, side=96, log_steps=1, warm_up=1, rate=3e-3)


@pytest.fixture(scope="module")
def distances() -> tuple[STLPIPS, STLPIPS]:
    torch.manual_seed(1)
    return STLPIPS("alex").eval(), STLPIPS("vgg").eval()


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Crops:
    """One shard, of which every crop of a sample has the sample's level, and the target has stripes."""
    folder, count = tmp_path_factory.mktemp("crops"), SHARD * KINDS
    levels = (100 + torch.arange(count) // KINDS)[:, None, None, None].to(torch.uint8)
    kind = torch.arange(count) % KINDS
    render = levels.repeat(1, 3, STORED, STORED)
    render[:, 2] = (100 + kind)[:, None, None].to(torch.uint8)
    image = render[..., ::4, ::4].contiguous()
    target = render + 20
    target[..., 1::2, :] -= 40
    save_file(dict(zip(NAMES, (target, render, image), strict=True)), crops_path(folder, 0))
    found = Crops(folder, device=CPU)
    assert found.fill(SHARD, *cast("tuple[LooksGraph, PictureGraph, Generator]", (None, None, None)), seed=0) == 0
    return found


def trainer(crops: Crops, distances: tuple[STLPIPS, STLPIPS], folder: Path) -> RetouchTrainer:
    torch.manual_seed(3)
    return RetouchTrainer(PictureHead(), crops, distances, FEW, folder=folder, say=str)


def test_crops_fit_and_a_few_renders_are_anothers(crops: Crops) -> None:
    seen = crops.draw(200, 96, torch.Generator().manual_seed(0))
    assert seen.target.shape == seen.render.shape == (200, 3, 96, 96)
    assert seen.image.shape == (200, 3, 24, 24)
    of_image, of_render = (((part[:, 0, 0, 0] + 1) * 127.5).round() for part in (seen.image, seen.render))
    assert 0.03 < (of_image != of_render).float().mean() < 0.2
    # The target is the image's; so is the feature that the crop shows, whoever's the render is.
    own, other = (((part[:, :, 0, 0] + 1) * 127.5).round() for part in (seen.target, seen.render))
    assert torch.equal(own[:, 0] - 20, of_image)
    assert torch.equal(own[:, 2] - 20, other[:, 2])


def test_the_retouch_learns_and_the_rest_stays(
    crops: Crops, distances: tuple[STLPIPS, STLPIPS], tmp_path: Path
) -> None:
    run = trainer(crops, distances, tmp_path)
    before = {name: value.clone() for name, value in run.head.state_dict().items()}
    run.fit()
    changed = {name for name, value in run.head.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("retouch.") for name in changed)
    errors = [point["absolute"] for point in run.history]
    assert sum(errors[-4:]) < 0.7 * sum(errors[:4])


def test_a_killed_run_continues_where_it_was(crops: Crops, distances: tuple[STLPIPS, STLPIPS], tmp_path: Path) -> None:
    whole, first = (trainer(crops, distances, tmp_path / name) for name in ("whole", "parts"))
    whole._step()
    whole._step()
    first._step()
    first.save()
    second = trainer(crops, distances, tmp_path / "parts")
    assert second.resume()
    second._step()
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(value, second.averaged.state_dict()[name]), name


class Drawn(nn.Module):
    num_styles = 16

    def forward(self, w_plus: Tensor) -> Tensor:
        return w_plus[:, :1, :1, None].expand(-1, 3, 1024, 1024).clamp(-1, 1)


class Mapped(nn.Module):
    w_avg = torch.zeros(512)

    def forward(self, z: Tensor) -> Tensor:
        return z


class Parts:
    """Looks whose code is the photo, and a picture of it: the render darker, the image as it is."""

    def codes(self, photo: Tensor) -> tuple[Tensor, ...]:
        return photo, photo, photo, photo

    def parts(self, code: tuple[Tensor, Tensor], faithful: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return nn.functional.interpolate(code[0], scale_factor=4.0) - 0.2, faithful[1]


class Made:
    synthesis, mapping = Drawn(), Mapped()


def test_shards_depend_on_their_number_alone(tmp_path: Path) -> None:
    parts = cast("tuple[LooksGraph, PictureGraph, Generator]", (Parts(), Parts(), Made()))
    one, two = (Crops(tmp_path / name, device=CPU) for name in ("one", "two"))
    assert one.fill(SHARD + 1, *parts, seed=5) == 2 * SHARD
    assert two.fill(SHARD, *parts, seed=5) == SHARD
    assert two.fill(2 * SHARD, *parts, seed=5) == SHARD
    for number in range(2):
        files = [crops_path(tmp_path / name, number).read_bytes() for name in ("one", "two")]
        assert files[0] == files[1]
    assert len(one) == len(two) == 2 * SHARD
    seen = one.draw(4, 128, torch.Generator().manual_seed(1))
    assert seen.render.shape == (4, 3, 128, 128)
    assert (seen.render < 0.9).all()


def test_crops_show_eyes_and_mouth() -> None:
    eyes, rng = torch.tensor([[96.0, 120.0], [160.0, 120.0]]), torch.Generator().manual_seed(2)
    found = torch.tensor([corners(eyes, 1024, rng) for _ in range(200)]).float()
    middles = found.mean(0) + STORED / 2
    for middle, expected in zip(middles, ((384, 480), (640, 480), (512, 480 + 1.05 * 256)), strict=False):
        torch.testing.assert_close(middle, torch.tensor(expected, dtype=torch.float32), atol=8, rtol=0)
    assert found.min() >= 0
    assert found.max() <= 1024 - STORED
    assert (found % 4 == 0).all()


def test_a_sample_that_becomes_smaller_does_not_alias() -> None:
    stripes = torch.zeros(1, 3, 256, 256)
    stripes[..., ::2] = 1
    smaller = IDENTITY[None].clone()
    smaller[:, :, :2] *= 1.9
    assert float(moved(stripes, smaller).std()) < 0.1
    torch.testing.assert_close(moved(stripes, IDENTITY[None]), stripes, atol=1e-3, rtol=0)
