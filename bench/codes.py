"""How faithful and how editable one-pass codes are: ``python -m bench codes``, without a server.

Targets are generator samples, the project's photos and held-out faces, aligned and turned, at 256 px. Each code is
rendered, and edited along named directions. An edit is judged by what users get: the photo plus the change between
the edited and the plain render.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from assets.allocator import keep_freed
from assets.paths import ROOT
from bench import page
from bench.coders import Coder, LooksCoder, shipped
from bench.edits import SIDE, STRENGTH, EditJudge, EditQuality, cells, full_effects, latents, own_edits, steps, titles
from bench.likeness import Likeness, LikenessJudge
from bench.quality_report import same_person
from bench.table import head, mean, row
from client.atomic import write_all
from client.files.sheet import jpeg
from export.generator import load_generator
from export.training.looks.faces import read_faces
from export.training.looks.losses import reduced
from judges.faces import FaceDetector, Image8
from networks.close_ups import ffhq_square
from networks.generator_file import Generator
from networks.mobilestylegan import MobileStyleGAN
from networks.pixels import from_array, to_array
from networks.similarity import IDENTITY, compose, resample

MARK = "codes"
TURNED = 20.0
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class PlacedPhoto:
    """A photo, uint8 [256, 256, 3], and how its aligned face lies in it, float32 [1, 2, 3]."""

    name: str
    group: str
    image: Image8
    theta: Tensor


@dataclass
class CodeQuality:
    """One coder on one target.

    Attributes:
        coder: its name.
        group: the target's.
        name: the target's.
        quality: quality of the render.
        edits: edits along each direction, at both ends.
    """

    coder: str
    group: str
    name: str
    quality: Likeness
    edits: dict[str, tuple[EditQuality, EditQuality]] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench codes``."""
    parser.add_argument("--looks", type=Path, nargs="*", default=[], metavar="FOLDER", help="weights of two looks")
    sets = sorted((SHARED / "faces").glob("*.zip"))
    parser.add_argument("--faces", type=Path, nargs="*", default=sets, metavar="SET", help="sets of faces")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos", help="a folder (default: ../shared/photos)")
    parser.add_argument("--count", type=int, default=8, help="held-out faces of each set, and samples (default: 8)")
    parser.add_argument("--edits", type=int, default=4, help="targets of each group that are also edited (default: 4)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "codes", help="folder of codes.md, codes.json and sheets"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help=f"also write the table between the marks of {MARK} in a file"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, print the table, and write it with contact sheets."""
    keep_freed()  # as the side-car does
    page.check(args.write, MARK)
    generator = load_generator("ffhq")
    coders = [*shipped(generator), *(LooksCoder.of_folder(generator, folder) for folder in args.looks)]
    bench = Bench(generator)
    wanted = list(targets(generator, args))
    full = full_effects(own_edits(generator, bench.judge_edit, args.count))
    results: list[CodeQuality] = []
    rows: dict[str, list[Image8]] = {}
    for target in tqdm(wanted, desc="targets", disable=None):
        number = sum(t.group == target.group for t in wanted[: wanted.index(target)])
        for coder in coders:
            result, pictures = bench(coder, target, edits=number < args.edits)
            results.append(result)
            rows.setdefault(coder.name, []).append(np.concatenate(pictures, axis=1))
    text = table(results, full)
    found = [asdict(result) for result in results]
    files = {args.out / "codes.md": text.encode(), args.out / "codes.json": json.dumps(found, indent=1).encode()}
    for name, strips in rows.items():
        longest = max(strip.shape[1] for strip in strips)
        padded = [np.pad(strip, ((0, 0), (0, longest - strip.shape[1]), (0, 0))) for strip in strips]
        files[args.out / f"{name}.jpg"] = jpeg(np.concatenate(padded), quality=90)
    write_all(files)
    page.write(args.write, text, MARK)
    print(text)


class Bench:
    """Renders and judges."""

    def __init__(self, generator: Generator) -> None:
        assert isinstance(generator.synthesis, MobileStyleGAN)
        self.generator, self.synthesis = generator, generator.synthesis
        self.judge, self.steps = LikenessJudge(), steps(generator)
        self.judge_edit = EditJudge(self.judge.judge)

    @torch.no_grad()
    def __call__(self, coder: Coder, target: PlacedPhoto, *, edits: bool) -> tuple[CodeQuality, list[Image8]]:
        """Judge a coder on a target; give the pictures too: photo, render, its eyes at full size, then the edits."""
        photo = from_array(target.image)
        code = coder(photo, target.theta)
        big = coder.picture(code)
        shown = to_array(reduced(big.clamp(-1, 1), SIDE))
        result = CodeQuality(coder.name, target.group, target.name, self.judge(target.image, shown))
        pictures = [target.image, shown, eyes(big, target.theta)]
        if edits:
            plain = self.render(code.f, code.w)
            for name, step in self.steps.items():
                ends = []
                for strength in (-STRENGTH, STRENGTH):
                    change = self.render(*code.edited(self.synthesis, strength * step)) - plain
                    edited = to_array(photo + change)
                    ends.append(self.judge_edit(name, target.image, edited))
                    pictures.append(edited)
                result.edits[name] = (ends[0], ends[1])
        return result, pictures

    def render(self, f: Tensor, w: Tensor) -> Tensor:
        """f and w_m_plus through the whole fine half: float32 [1, 3, 256, 256]."""
        return reduced(self.synthesis.fine(f, w).clamp(-1, 1), SIDE)


def eyes(image: Tensor, theta: Tensor) -> Image8:
    """The eyes as painted, without scaling: from an image [1, 3, S, S], uint8 [256, 512, 3]."""
    side = image.shape[-1]
    left, right = torch.tensor([[-0.252, -0.062], [0.256, -0.062]])  # in the aligned face
    middle = (torch.linalg.inv(theta[0, :, :2]) @ ((left + right) / 2 - theta[0, :, 2]) + 1) / 2 * side
    x, y = (int(v) for v in middle.clamp(256, side - 256))
    return to_array(image[:, :, y - 128 : y + 128, x - 256 : x + 256])


@torch.no_grad()
def targets(generator: Generator, args: argparse.Namespace) -> Iterator[PlacedPhoto]:
    """Samples, photos and held-out faces, aligned and turned."""
    angle = np.radians(TURNED)
    turn = torch.tensor([[[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]], dtype=torch.float32)
    for variant, theta in (("", IDENTITY[None]), (" turned", turn)):
        for number, w in enumerate(latents(generator, args.count)):
            image = reduced(generator.synthesis(w[None]).clamp(-1, 1), SIDE)
            moved = resample(image, theta, (SIDE, SIDE)) if variant else image
            yield PlacedPhoto(f"sample {number}", f"samples{variant}", to_array(moved), theta)
        detector = FaceDetector()
        for path in sorted(args.photos.glob("*.*")) if args.photos.is_dir() else []:
            if path.suffix not in (".png", ".jpg"):
                continue
            photo = np.asarray(Image.open(path).convert("RGB"))
            side = max(photo.shape[:2])
            square = np.pad(photo, ((0, side - photo.shape[0]), (0, side - photo.shape[1]), (0, 0)), mode="edge")
            if (face := detector.portrait(square)) is None:
                continue
            places = compose(ffhq_square(torch.from_numpy(face.landmarks / side)[None].float()), theta)
            small = resample(from_array(square), places, (4 * SIDE, 4 * SIDE))
            yield PlacedPhoto(path.stem, f"photos{variant}", to_array(reduced(small, SIDE)), theta)
        for path in args.faces:
            faces = read_faces(path)
            for number in faces.heldout[:: max(1, len(faces.heldout) // args.count)][: args.count].tolist():
                zoom = max(1.0, faces.zooms(number)[0] * 1.2)
                place = theta.clone()
                place[:, :, :2] /= zoom
                view, _ = faces.views(torch.tensor([number]), place, torch.tensor([False]))
                yield PlacedPhoto(f"{path.stem} {number}", f"{path.stem}{variant}", to_array(view), place)


def table(results: Iterable[CodeQuality], full: dict[str, float]) -> str:
    """Means as Markdown, a row for each group and coder, with counts."""
    results = list(results)
    columns = ["group", "coder", "n", "Alex", "VGG", "PSNR", "identity", "second", "same person", "landmarks", "skin"]
    lines = head([*columns, *titles()])
    for group, coder in dict.fromkeys((r.group, r.coder) for r in results):
        some = [r for r in results if (r.group, r.coder) == (group, coder)]
        quality = [r.quality for r in some]
        same = same_person(quality)
        known = [
            mean([q.stlpips_alex for q in quality], ".3f"), mean([q.stlpips_vgg for q in quality], ".3f"),
            mean([q.psnr_256 for q in quality], ".1f"), mean([q.identity for q in quality], ".2f"),
            mean([q.second for q in quality], ".2f"), f"{sum(same)} of {len(same)}",
            mean([q.landmarks for q in quality], ".3f"), mean([q.skin for q in quality], ".1f"),
        ]  # fmt: skip
        lines.append(row([group, coder, str(len(some)), *known, *cells([r.edits for r in some if r.edits], full)]))
    return "\n".join(lines) + "\n"
