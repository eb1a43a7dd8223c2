"""Examples of the picture head: what they hold, that they can be made in parts, and how they are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.serve.looks import LooksGraph
from export.training.looks.draws import Batches
from export.training.looks.faces import Faces
from export.training.picture.examples import SAMPLES, SHARD, Shards, make_shard, shard_path
from networks.generator_file import Generator
from tests.export.training.looks.conftest import cheap_paint, faces, generator  # noqa: F401

CPU = torch.device("cpu")


class Painted(nn.Module):
    """A synthesis that paints cheaply."""

    num_styles = 16

    def forward(self, w_plus: Tensor) -> Tensor:
        return cheap_paint(w_plus[:, :1, :, None].transpose(1, 2).expand(-1, -1, 16, 16), w_plus)

    def fine(self, f: Tensor, w: Tensor) -> Tensor:
        return cheap_paint(f, w)


class Known(nn.Module):
    """Looks whose codes say which photo they saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def codes(self, photo: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self.seen.append(photo)
        level = photo.mean((1, 2, 3))
        f, w = level[:, None, None, None].expand(-1, 512, 16, 16), level[:, None, None].expand(-1, 12, 512)
        return f, w, 2 * f, 2 * w


@pytest.fixture
def batches(generator: Generator, faces: Faces) -> Batches:  # noqa: F811
    painted = Generator(mapping=generator.mapping, synthesis=Painted(), fingerprint="0" * 16)  # type: ignore[arg-type]
    return Batches(painted, [(faces, 1.0)], torch.zeros(0), cheap_paint)


def shard(batches: Batches, number: int = 0, looks: Known | None = None) -> dict[str, Tensor]:
    return make_shard(looks or Known(), batches, seed=3, number=number)  # type: ignore[arg-type]


def test_a_shard_holds_both_codes_of_what_the_looks_saw(batches: Batches) -> None:
    looks = Known()
    found = shard(batches, looks=looks)
    assert {name: (tuple(t.shape), t.dtype) for name, t in found.items()} == {
        "target": ((SHARD, 3, 256, 256), torch.uint8),
        "render": ((SHARD, 3, 256, 256), torch.uint8),
        "f": ((SHARD, 512, 16, 16), torch.float16),
        "w_m_plus": ((SHARD, 12, 512), torch.float16),
        "theta": ((SHARD, 2, 3), torch.float32),
    }
    assert len({tuple(theta.flatten().tolist()) for theta in found["theta"]}) == SHARD
    seen = torch.cat(looks.seen)
    level = seen.mean((1, 2, 3))
    torch.testing.assert_close(found["f"][:, 0, 0, 0].float(), 2 * level, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found["w_m_plus"][:, 0, 0].float(), 2 * level, atol=1e-3, rtol=1e-3)
    expected = cheap_paint(level[:, None, None, None].expand(-1, 512, 16, 16), level[:, None, None].expand(-1, 12, 512))
    torch.testing.assert_close(found["render"].float() / 127.5 - 1, expected, atol=0.005, rtol=0)
    # Photos are shown as the looks saw them; samples with all their detail.
    apart = (found["target"].float() / 127.5 - 1 - seen).abs().mean((1, 2, 3))
    assert apart[SAMPLES:].max() < 0.005
    assert apart[:SAMPLES].max() > 0.005


def test_a_shard_depends_on_its_number_alone(batches: Batches) -> None:
    first, other = shard(batches), shard(batches, 1)
    assert all(torch.equal(value, first[name]) for name, value in shard(batches).items())
    assert not torch.equal(first["target"], other["target"])


def test_more_examples_add_to_what_is_there(batches: Batches, tmp_path: Path) -> None:
    looks: LooksGraph = Known()  # type: ignore[assignment]
    shards = Shards(tmp_path, device=CPU)
    assert shards.fill(1, looks, batches, seed=3) == SHARD
    before = shard_path(tmp_path, 0).stat().st_mtime_ns
    again = Shards(tmp_path, device=CPU)
    assert again.fill(SHARD + 1, looks, batches, seed=3) == SHARD
    assert (len(shards), len(again)) == (SHARD, 2 * SHARD)
    assert shard_path(tmp_path, 0).stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.part"))


def test_examples_are_drawn_from_all_of_them(batches: Batches, tmp_path: Path) -> None:
    shards = Shards(tmp_path, device=CPU)
    shards.fill(2 * SHARD, Known(), batches, seed=3)  # type: ignore[arg-type]
    both = [shard(batches, number) for number in (0, 1)]
    known = torch.cat([one["f"] for one in both]).float()
    found = shards.draw(40, torch.Generator().manual_seed(0))
    where = (found.f[:, None, 0, 0, 0] == known[:, 0, 0, 0]).float().argmax(dim=1)
    assert (where < SHARD).any() and (where >= SHARD).any()
    for name in ("target", "render"):
        picture = torch.cat([one[name] for one in both])[where].float() / 127.5 - 1
        assert torch.equal(getattr(found, name), picture)
    again = shards.draw(40, torch.Generator().manual_seed(0))
    assert torch.equal(again.f, found.f)
