"""A cached set of generator samples to train on: images with the latents that made them.

Half of the samples are moved: ``f`` is shifted, rotated and scaled before the fine half renders it.
The fine half is convolutional, so its image moves along, and the pair (image, moved f) is exact: the
encoder sees unaligned faces with their true feature map, which no photo provides. Half of the samples
take their fine styles from a second latent (style mixing), because ``f`` must not depend on them.

The set is a folder of shards; each depends on its seed alone, so an interrupted run goes on where it
stopped and several processes may fill one folder.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from export.generator import load_generator
from networks.generator_file import Generator
from networks.mobilestylegan import NUM_STYLES, coarse_styles

SHARD = 128
IMAGE_SIZE = 256
SPLITS = {"train": 0, "heldout": 1_000_000}  # seed offsets
IDENTITY = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True, kw_only=True)
class Moves:
    """Ranges of the geometric transformation of ``f``, uniform in each."""

    rotation: float = 35.0  # degrees, either way
    shift: float = 0.25  # fraction of the image, either way
    zoom: tuple[float, float] = (0.65, 1.4)  # log-uniform; above 1 the face is larger


def draw_moves(count: int, *, moves: Moves, rng: torch.Generator) -> Tensor:
    """Random similarity transforms as ``affine_grid`` matrices, float32 [count, 2, 3]."""
    angle, zoom, x, y = torch.rand(4, count, generator=rng)
    angle = (2 * angle - 1) * math.radians(moves.rotation)
    scale = 1 / (moves.zoom[0] * (moves.zoom[1] / moves.zoom[0]) ** zoom)
    x, y = ((2 * t - 1) * 2 * moves.shift for t in (x, y))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)


def move(f: Tensor, theta: Tensor) -> Tensor:
    """Resample feature maps (or images) through similarity transforms, reflecting at the border.

    Args:
        f: float32 [B, C, S, S].
        theta: float32 [B, 2, 3], as for ``affine_grid``; the identity leaves a map exactly as it is.

    Returns:
        float32 [B, C, S, S].
    """
    moved = F.grid_sample(
        f, F.affine_grid(theta, list(f.shape), align_corners=False), padding_mode="reflection", align_corners=False
    )
    still = (theta == IDENTITY.to(theta)).all(dim=(1, 2))
    return torch.where(still[:, None, None, None], f, moved)


def latents(split: str, shard: int, generator: Generator) -> dict[str, Tensor]:
    """What a shard is made from: ``w_coarse`` and ``w_fine`` [128, 512], ``theta`` [128, 2, 3]."""
    rng = torch.Generator().manual_seed(SPLITS[split] + shard)
    w, other = (generator.mapping(torch.randn(SHARD, 512, generator=rng)) for _ in range(2))
    half = torch.arange(SHARD) % 2 == 0
    quarter = (torch.arange(SHARD) // 2) % 2 == 0
    if split == "train":
        psi = 0.6 + 0.4 * torch.rand(2, SHARD, 1, generator=rng)
        mixed = quarter
    else:  # the paper's psi, nothing mixed: what the published numbers are measured on
        psi = torch.full((2, SHARD, 1), 0.7)
        mixed = torch.zeros(SHARD, dtype=torch.bool)
    w_avg = generator.mapping.w_avg
    w, other = (w_avg + p * (v - w_avg) for p, v in zip(psi, (w, other), strict=True))
    theta = torch.where(half[:, None, None], IDENTITY, draw_moves(SHARD, moves=Moves(), rng=rng))
    return {"w_coarse": w, "w_fine": torch.where(mixed[:, None], other, w), "theta": theta}


def features(generator: Generator, w_coarse: Tensor, theta: Tensor, *, cut: int) -> Tensor:
    """The target f of samples: float32 [B, 512, cut, cut] from [B, 512] and [B, 2, 3]."""
    f = generator.synthesis.coarse(w_coarse[:, None].expand(-1, coarse_styles(cut), -1), cut=cut)
    return move(f, theta)


def shard_path(folder: Path, split: str, shard: int) -> Path:
    """Where a shard lies."""
    return folder / f"{split}-{shard:05d}.safetensors"


@torch.no_grad()
def render(generator: Generator, folder: Path, *, split: str, shards: range, cut: int = 16) -> None:
    """Fill in the missing shards; images are rendered at 1024 px and kept at 256 px (area average)."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    synthesis = generator.synthesis.to(device)
    fine_styles = NUM_STYLES - coarse_styles(cut)

    def draw(f: Tensor, w: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            image = synthesis.fine(f, w[:, None].expand(-1, fine_styles, -1)).float()
        image = F.avg_pool2d(image, image.shape[-1] // IMAGE_SIZE)
        return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    compiled = torch.compile(draw)
    step = 16 if cuda else 1  # one at a time is the fastest on a CPU: the maps then fit its cache
    folder.mkdir(parents=True, exist_ok=True)
    missing = [s for s in shards if not shard_path(folder, split, s).exists()]
    for shard in tqdm(missing, desc=f"{split} samples", unit=f"x{SHARD}", disable=None):
        tensors = latents(split, shard, generator)
        images = []
        for i in range(0, SHARD, step):
            w, theta, fine = (tensors[k][i : i + step].to(device) for k in ("w_coarse", "theta", "w_fine"))
            images.append(compiled(features(generator, w, theta, cut=cut), fine).cpu())
        tensors["image"] = torch.cat(images).permute(0, 2, 3, 1).contiguous()
        target = shard_path(folder, split, shard)
        partial = target.with_suffix(f".{os.getpid()}.part")
        save_file(tensors, partial)
        partial.replace(target)


def shards(folder: Path, split: str) -> Iterator[dict[str, Tensor]]:
    """The shards that exist: ``image`` uint8 [128, 256, 256, 3] and the latents that made them."""
    for path in sorted(folder.glob(f"{split}-*.safetensors")):
        yield load_file(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export samples``."""
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--shards", type=int, default=64, help=f"how many shards of {SHARD} samples (default: 64)")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard (default: 0)")
    parser.add_argument("--folder", type=Path, default=None, help="default: build/samples/DOMAIN")


def run(args: argparse.Namespace) -> None:
    """Render the samples that are missing."""
    from export.paths import samples_folder

    folder = args.folder or samples_folder(args.domain)
    render(load_generator(args.domain), folder, split=args.split, shards=range(args.first, args.first + args.shards))
