"""The picture head's training: that it learns, goes on after a kill, and refuses odd options."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from export import publish
from export.__main__ import main
from export.training.looks.weights import read_parts
from export.training.picture import command
from export.training.picture.command import chosen
from export.training.picture.examples import NAMES, SHARD, Shards, shard_path
from export.training.picture.run import PictureTrainer
from export.training.picture.trainer import Plan
from networks.looks_file import load_picture_head
from networks.mobilestylegan import MobileStyleGAN
from networks.perceptual import STLPIPS
from networks.picture_head import PictureHead
from networks.short_head import ShortHead
from networks.similarity import IDENTITY

PLAN = Plan(minutes=1e6, steps=3, batch=2, side=96, log_steps=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def synthesis() -> MobileStyleGAN:
    torch.manual_seed(0)
    return MobileStyleGAN().eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def distances() -> tuple[STLPIPS, STLPIPS]:
    torch.manual_seed(1)
    return STLPIPS("alex").eval(), STLPIPS("vgg").eval()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """One shard: light noise of dark renders."""
    folder, rng = tmp_path_factory.mktemp("examples"), torch.Generator().manual_seed(2)
    size = (SHARD, 3, 256, 256)
    target, render = (torch.randint(at, at + 60, size, dtype=torch.uint8, generator=rng) for at in (180, 20))
    f, w = torch.randn(SHARD, 512, 16, 16, generator=rng).half(), torch.randn(SHARD, 12, 512, generator=rng).half()
    theta = IDENTITY.repeat(SHARD, 1, 1)
    save_file(dict(zip(NAMES, (target, render, f, w, theta), strict=True)), shard_path(folder, 0))
    shards = Shards(folder, device=CPU)
    assert shards.fill(SHARD, None, None, seed=0) == 0  # type: ignore[arg-type]
    return shards


def trainer(
    synthesis: MobileStyleGAN, shards: Shards, distances: tuple[STLPIPS, STLPIPS], folder: Path, plan: Plan = PLAN
) -> PictureTrainer:
    torch.manual_seed(3)
    head = PictureHead()
    head.start_from(ShortHead())
    return PictureTrainer(synthesis, head, shards, distances, plan, folder=folder, say=str)


def test_a_killed_run_continues_where_it_was(
    synthesis: MobileStyleGAN, shards: Shards, distances: tuple[STLPIPS, STLPIPS], tmp_path: Path
) -> None:
    plan = replace(PLAN, steps=10**6)  # the step size does not follow the steps here
    whole = trainer(synthesis, shards, distances, tmp_path / "whole", plan)
    for _ in range(3):
        whole._step()
    first = trainer(synthesis, shards, distances, tmp_path / "parts", plan)
    assert not first.resume()
    first._step()
    first.save()
    second = trainer(synthesis, shards, distances, tmp_path / "parts", plan)
    assert second.resume()
    assert second.done == 1
    for _ in range(2):
        second._step()
    for network, other in ((whole.head, second.head), (whole.averaged, second.averaged)):
        for name, value in network.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert [set(point) >= {"absolute", "alex", "vgg", "texture"} for point in second.history] == [True] * 3


def test_the_head_learns_what_is_shown(
    synthesis: MobileStyleGAN, shards: Shards, distances: tuple[STLPIPS, STLPIPS], tmp_path: Path
) -> None:
    plan = replace(PLAN, steps=12, warm_up=1)
    run = trainer(synthesis, shards, distances, tmp_path, plan)
    run.fit()
    assert run.done == 12
    assert run.history[-1]["absolute"] < 0.8 * run.history[0]["absolute"]


def test_half_of_the_crops_show_an_eye(
    synthesis: MobileStyleGAN, shards: Shards, distances: tuple[STLPIPS, STLPIPS], tmp_path: Path
) -> None:
    run = trainer(synthesis, shards, distances, tmp_path)
    eyes, rng = torch.tensor([[10.0, 12.0], [16.0, 12.0]]), torch.Generator().manual_seed(4)
    corners = torch.tensor([run._corner(eyes, rng) for _ in range(400)])
    assert corners.min() == 0
    assert corners.max() == 64 - 96 // 4
    near = (corners <= 1).all(dim=1)  # the crop that shows these eyes lies in the corner
    assert 0.45 < near.float().mean() < 0.6


def test_what_a_run_leaves_is_published(
    synthesis: MobileStyleGAN,
    shards: Shards,
    distances: tuple[STLPIPS, STLPIPS],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trainer(synthesis, shards, distances, tmp_path / "run", replace(PLAN, steps=1))
    run.fit()
    with torch.device("meta"):
        shape = MobileStyleGAN()
    monkeypatch.setattr(publish, "generator_metadata", lambda _: {"fingerprint": "0" * 16})
    monkeypatch.setattr(publish, "read_shape", lambda _: shape)
    assert main(["publish", str(tmp_path / "run"), "--weights", str(tmp_path), "--only", "picture_head"]) == 0
    found = load_picture_head(tmp_path / "picture_head16.safetensors", generator="0" * 16).state_dict()
    for name, value in read_parts(tmp_path / "run", "picture").items():
        assert torch.equal(found[name], value)
        torch.testing.assert_close(value, run.averaged.state_dict()[name], atol=1e-3, rtol=1e-3)


def options(**given: object) -> Namespace:
    names = ("minutes", "steps", "batch", "learning_rate", "log_steps")
    return Namespace(**(dict.fromkeys(names) | {"seed": 0, "examples": 10, "photos": [Path("a")]} | given))


def test_the_plan_follows_the_options() -> None:
    assert chosen(options(), Plan()) == Plan()
    assert chosen(options(minutes=3.0, batch=2, seed=5), Plan(rate=0.5)) == Plan(minutes=3.0, batch=2, seed=5, rate=0.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minutes": 0.0}, "minutes must be above 0"),
        ({"batch": -1}, "batch must be above 0"),
        ({"examples": 0}, "--examples must be at least 1"),
    ],
)
def test_odd_options_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chosen(options(**given), Plan())


def test_the_head_needs_real_faces() -> None:
    with pytest.raises(ValueError, match="needs real faces: name some with `--photos`"):
        command.run(options(photos=None, device="cpu"))
