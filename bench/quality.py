"""How good reconstructions are: ``python -m bench quality``, against a running server.

Targets are photos and generator samples (whose seeds no training uses), each plain and rotated by 20 degrees with a
reflected border, as squares of 1024 px. No number is enough alone: ST-LPIPS accepts broken faces and PSNR blurred
ones, so identity, landmarks, whether a face is found at all, and the contact sheet stand beside them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from client.errors import PhotoError
from client.inverter import DEFAULT_URL, Inverter
from client.photo import Photo
from client.sheet import png, sheet
from export.paths import ROOT
from judges.reconstruction import Judge, Quality

Image8 = NDArray[np.uint8]
Reconstruct = Callable[[Image8], Image8]

SIDE = 1024
DEGREES = 20.0
FIRST_SEED = 1000


@dataclass(frozen=True)
class Target:
    """An image to reconstruct: uint8 RGB [1024, 1024, 3], its name, and the group whose mean it enters."""

    name: str
    group: str
    image: Image8


COLUMNS = {
    "stlpips_vgg": ("ST-LPIPS VGG", ".3f"),
    "stlpips_alex": ("ST-LPIPS Alex", ".3f"),
    "psnr_256": ("PSNR 256", ".1f"),
    "psnr": ("PSNR 1024", ".1f"),
    "identity": ("identity", ".2f"),
    "landmarks": ("landmarks", ".3f"),
    "face": ("faces", ".0%"),
}

LEGEND = """ST-LPIPS is shift-tolerant LPIPS, at 256 px. Identity is the cosine of SFace embeddings (0.363 and more is
the same person to its authors), landmarks their mean distance in eye distances of the target; both are means over the
reconstructions in which a face is found, so read them with the share of faces. The detector finds faces with smeared
eyes too: look at the sheet."""


def rotated(image: Image8, degrees: float) -> Image8:
    """Rotate a square image about its middle, anticlockwise, reflecting it at its border."""
    side = image.shape[0]
    margin = side // 2
    padded = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    turned = padded.rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(turned.crop((margin, margin, margin + side, margin + side)))


def targets(images: Sequence[tuple[str, str, Image8]]) -> list[Target]:
    """Each image (name, group, pixels) plain and rotated."""
    plain = [Target(name, f"{group}, plain", image) for name, group, image in images]
    turned = [Target(f"{name}, rotated", f"{group}, rotated", rotated(image, DEGREES)) for name, group, image in images]
    return plain + turned


def table(results: Sequence[tuple[Target, Quality]]) -> str:
    """A Markdown table: a row a target, then the mean of each group."""
    lines = [
        "| target | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
        *(_row(target.name, [quality]) for target, quality in results),
    ]
    for group in dict.fromkeys(target.group for target, _ in results):
        lines.append(_row(f"**mean: {group}**", [quality for target, quality in results if target.group == group]))
    return "\n".join(lines) + "\n"


def through(inverter: Inverter) -> Reconstruct:
    """Reconstructions by the encoder alone, as ``client invert --fast`` gives them."""

    def reconstruct(image: Image8) -> Image8:
        return inverter.invert(Photo.decode(png(image), name="target.png")).reconstruction

    return reconstruct


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench quality``."""
    url = os.environ.get("UNALIGNED_URL", DEFAULT_URL)
    parser.add_argument("--url", default=url, help="Triton's gRPC endpoint (default: $UNALIGNED_URL or %(default)s)")
    photos = ROOT.parent / "shared" / "photos"
    parser.add_argument("--photos", type=Path, default=photos, help="a folder of photos (default: ../shared/photos)")
    parser.add_argument("--samples", type=int, default=8, help="generator samples besides the photos (default: 8)")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="for quality.md and quality.png (default: out)")


def run(args: argparse.Namespace) -> None:
    """Measure, print the table, and write it and the contact sheet."""
    with Inverter(args.url) as inverter:
        images = [("photo " + name, "photos", image) for name, image in photos(args.photos)]
        seeds = range(FIRST_SEED, FIRST_SEED + args.samples)
        images += [(f"sample {seed}", "samples", inverter.generate(seed)) for seed in seeds]
        if not images:
            raise ValueError(f"there is nothing to measure: no photo in {args.photos} and no samples")
        chosen = targets(images)
        judge, reconstruct = Judge(), through(inverter)
        pictures, results = [], []
        for target in tqdm(chosen, desc="reconstructions", disable=None):
            reconstruction = reconstruct(target.image)
            results.append((target, judge(target.image, reconstruction)))
            pictures += [(target.name, target.image), ("reconstruction", reconstruction)]
    text = f"{table(results)}\n{LEGEND}\n"
    args.out.mkdir(parents=True, exist_ok=True)
    _write(args.out / "quality.md", text.encode())
    _write(args.out / "quality.png", png(sheet(pictures).reduce(2)))
    print(text)


def photos(folder: Path) -> Iterator[tuple[str, Image8]]:
    """Name and centre square of each photo in a folder; none where there is no folder."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with suppress(PhotoError):
            photo = Photo.open(path)
            yield path.stem, photo.pixels(photo.square(), SIDE)


def _row(name: str, qualities: Sequence[Quality]) -> str:
    cells = []
    for field, (_, form) in COLUMNS.items():
        values = [value for quality in qualities if (value := getattr(quality, field)) is not None]
        cells.append(format(fmean(values), form) if values else "-")
    return f"| {name} | " + " | ".join(cells) + " |"


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".part")
    partial.write_bytes(data)
    partial.replace(path)
