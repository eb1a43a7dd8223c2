"""Samples of the generator to train on, cached: images and their latents.

Most training samples mix the styles of two or three latents, changing from one to the next before a random layer
(style mixing; StyleGAN, section 3.1): the encoder's ``f`` must not depend on the styles behind it, nor a fine style on
the others. Nothing is moved here: training moves images as it reads them, anew each time.

The set is a folder of shards; each depends on its seed alone, so an interrupted run continues where it
stopped and several processes may fill one folder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from assets.compiled import compile_function
from export.generator import load_generator
from networks.generator_file import Generator
from networks.pixels import to_uint8
from networks.precision import in_half

SHARD = 128
IMAGE_SIZE = 256
SOURCES = 3  # latents of a sample
# Seed offsets. Directions are fitted to `unmixed`: a score of a mixed sample belongs to no single latent.
SPLITS = {"train": 0, "heldout": 1_000_000, "unmixed": 2_000_000}
PSI = {"train": (0.5, 1.0), "heldout": (0.7, 0.7), "unmixed": (0.5, 1.0)}  # heldout: as in the paper, for comparison


def latents(split: str, shard: int, generator: Generator) -> dict[str, Tensor]:
    """The latents of a shard.

    Returns:
        ``w``: float32 [128, 3, 512], the latents. ``layers``: int64 [128, num_styles], which of them each layer takes.
        Training samples change latents 0, 1 or 2 times; the others take the first everywhere.
    """
    rng = torch.Generator().manual_seed(SPLITS[split] + shard)
    w = generator.mapping(torch.randn(SHARD * SOURCES, 512, generator=rng)).unflatten(0, (SHARD, SOURCES))
    low, high = PSI[split]
    psi = low + (high - low) * torch.rand(SHARD, SOURCES, 1, generator=rng)
    w = generator.mapping.w_avg + psi * (w - generator.mapping.w_avg)
    count = generator.synthesis.num_styles
    # A change at layer ``count`` never happens.
    before = torch.randint(1, count, (SHARD, SOURCES - 1), generator=rng)
    changes = torch.arange(SHARD) % SOURCES if split == "train" else torch.zeros(SHARD, dtype=torch.int64)
    before = torch.where(torch.arange(SOURCES - 1) < changes[:, None], before, count)
    layers = (torch.arange(count) >= before[:, :, None]).sum(dim=1)
    return {"w": w, "layers": layers}


def styles(w: Tensor, layers: Tensor) -> Tensor:
    """w_plus, float32 [B, n, 512], of ``w`` [B, 3, 512] and ``layers`` [B, n]."""
    return w.gather(1, layers[:, :, None].expand(-1, -1, w.shape[-1]))


def at_size(image: Tensor) -> Tensor:
    """[B, 3, S, S] -> [B, 3, 256, 256], by area average; smaller images are repeated."""
    side = image.shape[-1]
    if side < IMAGE_SIZE:
        return image.repeat_interleave(IMAGE_SIZE // side, dim=2).repeat_interleave(IMAGE_SIZE // side, dim=3)
    return F.avg_pool2d(image, side // IMAGE_SIZE)


def shard_path(folder: Path, split: str, shard: int) -> Path:
    """The file of a shard."""
    return folder / f"{split}-{shard:05d}.safetensors"


@torch.no_grad()
def render(generator: Generator, folder: Path, *, split: str, shards: range) -> None:
    """Render the missing shards; images are stored at 256 px, by area average."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    synthesis = generator.synthesis.to(device)

    # Compiled below its autocast: above it, every call recompiles.
    draw = in_half(compile_function(synthesis), device)
    step = 16 if cuda else 1  # one at a time is fastest on a CPU, because the maps fit the cache
    folder.mkdir(parents=True, exist_ok=True)
    missing = [s for s in shards if not shard_path(folder, split, s).exists()]
    for shard in tqdm(missing, desc=f"{split} samples", unit=f"x{SHARD}", disable=None):
        tensors = latents(split, shard, generator)
        w_plus = styles(**tensors)
        parts = torch.split(w_plus.to(device), step)
        images = [to_uint8(at_size(draw(part))).cpu() for part in parts]
        tensors["image"] = torch.cat(images).permute(0, 2, 3, 1).contiguous()
        target = shard_path(folder, split, shard)
        partial = target.with_suffix(f".{os.getpid()}.part")
        save_file(tensors, partial)
        partial.replace(target)


def shards(folder: Path, split: str) -> Iterator[dict[str, Tensor]]:
    """The existing shards: ``image`` uint8 [128, 256, 256, 3] and their latents."""
    for path in sorted(folder.glob(f"{split}-*.safetensors")):
        yield load_file(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export samples``."""
    parser.add_argument("--split", choices=SPLITS, default="train", help="samples to render (default: train)")
    parser.add_argument("--shards", type=int, default=64, help=f"number of shards of {SHARD} samples (default: 64)")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard (default: 0)")
    parser.add_argument("--folder", type=Path, help="folder of the samples (default: build/samples/DOMAIN)")


def run(args: argparse.Namespace) -> None:
    """Render the missing samples."""
    from assets.paths import samples_folder

    folder = args.folder or samples_folder(args.domain)
    render(load_generator(args.domain), folder, split=args.split, shards=range(args.first, args.first + args.shards))
