"""Crops of samples at full size: what the retouch sees of them, and the true picture.

As :mod:`export.training.picture.examples`, in shards that each depend on their number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from export.serve.looks import LooksGraph, PictureGraph
from export.training.looks.draws import draw_move, draw_styles
from export.training.looks.losses import reduced
from export.training.moves import degrade
from export.training.picture.eyes import places
from export.training.picture.shards import ShardFolder
from networks.generator_file import Generator
from networks.looks import PHOTO
from networks.pixels import from_uint8, to_uint8
from networks.retouch import TIMES
from networks.similarity import resample

SHARD = 8  # samples
KINDS = 5  # crops of a sample: each eye, the mouth, and two anywhere
STORED = 192  # px at full size; what is drawn is smaller
SCATTER = 16.0  # px: deviation of a crop's middle
MOUTH = 1.05  # eye distances from the middle of the eyes
ZOOMS = (0.5, 1.3)
CLEAN = 0.5  # share of samples that the looks see with all their detail
ANOTHER = 0.1  # share of crops whose render is another sample's, at the same feature
NAMES = ("target", "render", "image")


@dataclass(frozen=True)
class Seen:
    """What the retouch sees.

    Attributes:
        target: float32 [B, 3, S, S], the true picture.
        render: float32 [B, 3, S, S], the render of the code to edit; of a few, of another sample's.
        image: float32 [B, 3, S / 4, S / 4], what the picture head paints.
    """

    target: Tensor
    render: Tensor
    image: Tensor


def crops_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"crops-{number:05d}.safetensors"


@torch.no_grad()
def make_crops(
    looks: LooksGraph, picture: PictureGraph, generator: Generator, *, seed: int, number: int
) -> dict[str, Tensor]:
    """One shard: uint8 [SHARD * KINDS, 3, S, S] each, the crops of a sample one after the other.

    Args:
        looks: both looks, in evaluation mode.
        picture: paints their codes.
        generator: draws the samples.
        seed: seed of all shards.
        number: of this one.
    """
    rng = torch.Generator().manual_seed(seed * 10**6 + number)
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for w in draw_styles(generator, SHARD, rng):
        theta = draw_move(ZOOMS, rng)[None].to(w)
        target = moved(generator.synthesis(w[None]).clamp(-1, 1), theta)
        photo = reduced(target, PHOTO)
        clean = float(torch.rand((), generator=rng)) < CLEAN
        f, w_m_plus, *faithful = looks.codes(photo if clean else degrade(photo, rng=rng))
        render, image = picture.parts((f, w_m_plus), (faithful[0], faithful[1]))
        for x, y in corners(places(theta)[0].cpu(), target.shape[-1], rng):
            part, small = (slice(y, y + STORED), slice(x, x + STORED)), STORED // TIMES
            seen = image[0, :, y // TIMES : y // TIMES + small, x // TIMES : x // TIMES + small]
            rows.append((to_uint8(target[0, :, *part]), to_uint8(render[0, :, *part]), to_uint8(seen)))
    return dict(zip(NAMES, (torch.stack(column).cpu() for column in zip(*rows, strict=True)), strict=True))


def moved(image: Tensor, theta: Tensor) -> Tensor:
    """Move a sample at full size, [1, 3, S, S]; one that becomes smaller is reduced first, so as not to alias."""
    zoom = float(theta[0, 0, :2].norm())
    side = round(image.shape[-1] / max(1.0, zoom))
    small = F.interpolate(image, size=side, mode="bicubic", antialias=True) if side < image.shape[-1] else image
    return resample(small, theta, (image.shape[-1], image.shape[-1]), mode="bicubic").clamp(-1, 1)


def corners(eyes: Tensor, side: int, rng: torch.Generator) -> list[tuple[int, int]]:
    """Left and top of each crop of a picture, multiples of ``TIMES``; ``eyes`` [2, 2] as of `eyes.places`."""
    left, right = eyes * (side / PHOTO)
    down = torch.stack([-(right - left)[1], (right - left)[0]])
    middles = [left, right, (left + right) / 2 + MOUTH * down, *(side * torch.rand(2, 2, generator=rng))]
    found = []
    for middle in middles:
        corner = (middle + SCATTER * torch.randn(2, generator=rng) - STORED / 2).clamp(0, side - STORED)
        x, y = (int(at) // TIMES * TIMES for at in corner)
        found.append((x, y))
    return found


class Crops(ShardFolder):
    """A folder of crops.

    Args:
        folder: holds the shards.
        device: where crops are drawn to.
    """

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        super().__init__(folder, path=crops_path, size=SHARD, device=device)

    def fill(self, count: int, looks: LooksGraph, picture: PictureGraph, generator: Generator, *, seed: int) -> int:
        """Make what is missing of the crops of ``count`` samples, and read all; returns of how many they were made."""
        return self.make(count, partial(make_crops, looks, picture, generator, seed=seed))

    def draw(self, count: int, side: int, rng: torch.Generator) -> Seen:
        """Some of them, ``side`` px at full size, half of them mirrored, whichever ``rng`` says."""
        parts: dict[str, list[Tensor]] = {name: [] for name in NAMES}
        for _ in range(count):
            sample, other, kind = (int(torch.randint(n, (), generator=rng)) for n in (len(self), len(self), KINDS))
            another, mirrored = (torch.rand(2, generator=rng) < torch.tensor([ANOTHER, 0.5])).tolist()
            y, x = (TIMES * torch.randint((STORED - side) // TIMES + 1, (2,), generator=rng)).tolist()
            for name in NAMES:
                of = other if another and name == "render" else sample
                times = TIMES if name == "image" else 1
                crop = self.read[of // SHARD][name][of % SHARD * KINDS + kind]
                crop = crop[:, y // times : (y + side) // times, x // times : (x + side) // times]
                parts[name].append(crop.flip(2) if mirrored else crop)
        return Seen(**{name: from_uint8(torch.stack(crops).to(self.device)) for name, crops in parts.items()})
