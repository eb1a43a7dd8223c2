"""Examples: what the picture head sees of a photo, which the looks tell once, and the picture it should paint.

They are kept in shards, each of which depends on its number alone: an interrupted run continues, and one with more
examples adds to what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from export.serve.looks import LooksGraph
from export.training.looks.draws import Batches, draw_move, draw_styles
from export.training.looks.losses import reduced
from export.training.moves import degrade
from export.training.picture.shards import ShardFolder
from networks.looks import PHOTO
from networks.pixels import from_uint8, to_uint8
from networks.similarity import move

SHARD = 16
SAMPLES = 4  # of a shard; the others are photos
NAMES = ("target", "render", "f", "w_m_plus", "theta")


@dataclass(frozen=True)
class Examples:
    """Some examples.

    Attributes:
        target: float32 [B, 3, 256, 256], the photo; of samples with all detail, as the looks did not see it.
        render: float32 [B, 3, 256, 256], the render of the code to edit.
        f: float32 [B, C, 16, 16], the faithful code's.
        w_m_plus: float32 [B, m, 512], the same.
        theta: float32 [B, 2, 3], how the aligned face was moved.
    """

    target: Tensor
    render: Tensor
    f: Tensor
    w_m_plus: Tensor
    theta: Tensor


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"examples-{number:05d}.safetensors"


@torch.no_grad()
def make_shard(looks: LooksGraph, batches: Batches, *, seed: int, number: int) -> dict[str, Tensor]:
    """One shard: pictures in uint8, codes in float16.

    Args:
        looks: both looks, in evaluation mode.
        batches: gives the photos.
        seed: seed of all shards.
        number: of this one.
    """
    rng = torch.Generator().manual_seed(seed * 10**6 + number)
    generator, device = batches.generator, batches.device
    w = draw_styles(generator, SAMPLES, rng)
    places = torch.stack([draw_move((0.6, 1.3), rng) for _ in w])
    samples = torch.cat([reduced(move(generator.synthesis(one[None]).clamp(-1, 1), t[None]), PHOTO)
                         for one, t in zip(w, places.to(device), strict=True)])  # fmt: skip
    photos, _, theirs = batches.photos(SHARD - SAMPLES, rng)
    target, seen = torch.cat([samples, photos]), torch.cat([degrade(samples, rng=rng), photos])
    rows = []
    for shown, photo in zip(torch.split(target, 1), torch.split(seen, 1), strict=True):
        f, w_m_plus, *faithful = looks.codes(photo)
        render = reduced(generator.synthesis.fine(f, w_m_plus), PHOTO)
        rows.append((to_uint8(shown), to_uint8(render), *(part.half() for part in faithful)))
    parts = [torch.cat(column).cpu() for column in zip(*rows, strict=True)]
    return dict(zip(NAMES, [*parts, torch.cat([places, theirs])], strict=True))


class Shards(ShardFolder):
    """A folder of examples.

    Args:
        folder: holds the shards.
        device: where examples are drawn to.
    """

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        super().__init__(folder, path=shard_path, size=SHARD, device=device)

    def fill(self, count: int, looks: LooksGraph, batches: Batches, *, seed: int) -> int:
        """Make what is missing of ``count`` examples, and read all; returns how many were made."""
        return self.make(count, partial(make_shard, looks, batches, seed=seed))

    def draw(self, count: int, rng: torch.Generator) -> Examples:
        """Some of them, whichever ``rng`` says."""
        numbers = torch.randint(len(self), (count,), generator=rng).tolist()
        rows = [[self.read[n // SHARD][name][n % SHARD] for name in NAMES] for n in numbers]
        target, render, f, w_m_plus, theta = (torch.stack(parts).to(self.device) for parts in zip(*rows, strict=True))
        return Examples(from_uint8(target), from_uint8(render), f.float(), w_m_plus.float(), theta)
