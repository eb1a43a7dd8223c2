"""Quality of reconstructions and edits by running servers: ``python -m bench quality``.

Targets are photos, held-out faces and generator samples, plain and moved (`bench.targets`), inverted through the
client; photos and faces are edited too. Results are cached under ``build/bench/quality`` (`bench.reconstructions`), so
an interrupted run continues.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from assets.paths import BUILD, ROOT
from bench import page
from bench.edits import STRENGTH, EditJudge, OwnEdits, own_edits
from bench.likeness import LikenessJudge
from bench.quality_report import SHEET, Result, Row, markdown, strips
from bench.reconstructions import METHODS, Judges, MeasuredEdits, Reconstructions, mean_style
from bench.targets import FIRST_SEED, VARIANTS, Image8, heldout, photos, targets
from client.api import DEFAULT_DOMAIN, DEFAULT_REFINE_URL, DEFAULT_URL, Inverter
from client.atomic import write_all
from client.files.record import RefineOptions
from client.files.sheet import jpeg
from client.triton.grpc_sync import TritonTransport
from export.generator import load_generator
from sidecar.optimise.recipe import PRESETS

MARK = "quality"
SAMPLES = "samples"  # the group that is not edited
EFFECTS = 16  # samples whose edits in W tell the full effect
ROWS = 4  # of the contact sheet, of that group
SHOWN = ("smile", "age", "yaw")  # edits on the contact sheet, at their upper ends
# Name, group, and pixels: uint8 RGB [1024, 1024, 3].
Picture = tuple[str, str, Image8]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench quality``."""
    url = os.environ.get("UNALIGNED_URL") or DEFAULT_URL
    parser.add_argument("--url", default=url, help="gRPC endpoint of Triton (default: $UNALIGNED_URL or %(default)s)")
    url = os.environ.get("UNALIGNED_REFINE_URL") or DEFAULT_REFINE_URL
    parser.add_argument(
        "--refine-url",
        default=url,
        help="gRPC endpoint of the side-car, for the method refined (default: $UNALIGNED_REFINE_URL or %(default)s)",
    )
    folder = ROOT.parent / "shared" / "photos"
    parser.add_argument("--photos", type=Path, default=folder, help="a folder of photos (default: ../shared/photos)")
    sets = sorted((ROOT.parent / "shared" / "faces").glob("*.zip"))
    parser.add_argument(
        "--faces", type=Path, nargs="*", default=sets, metavar="SET",
        help="sets of faces, of which a tenth is held out (default: ../shared/faces/*.zip)",
    )  # fmt: skip
    parser.add_argument("--heldout", type=int, default=9, help="number of held-out faces of each set (default: 9)")
    parser.add_argument("--samples", type=int, default=8, help="number of generator samples (default: 8)")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=METHODS[:2],
        metavar="NAME",
        help=f"methods, of {', '.join(METHODS)} (default: mean fast)",
    )
    for option, default in (("--variants", "all"), ("--refined-variants", "those of --variants")):
        parser.add_argument(
            option,
            nargs="+",
            choices=list(VARIANTS),
            metavar="NAME",
            help=f"variants, of {', '.join(VARIANTS)} (default: {default})",
        )
    parser.add_argument("--steps", type=int, help="steps per refinement (default: the recipe's)")
    parser.add_argument("--seconds", type=float, help="seconds per refinement (default: no limit)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out", help=f"folder for quality.md and {SHEET} (default: out)"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help=f"also write the tables between the marks of {MARK} in a file, and the sheet next to it",
    )


def run(args: argparse.Namespace) -> None:
    """Measure, print the tables, and write them and the contact sheet."""
    options, plan = RefineOptions(steps=args.steps, seconds=args.seconds), planned(args)
    page.check(args.write, MARK)
    if args.write and args.write.resolve() == (args.out / "quality.md").resolve():
        raise ValueError(f"`--write {args.write}` and `--out` name the same file")
    transport, judged_by = TritonTransport(args.url), judges()
    with Inverter(args.url, transport=transport, refine_url=args.refine_url) as inverter:
        images: list[Picture] = [(f"photo {name}", "photos", image) for name, image in photos(args.photos)]
        for path in args.faces if args.heldout else []:
            images += [(name, path.stem, image) for name, image in heldout(path, args.heldout)]
        seeds = range(FIRST_SEED, FIRST_SEED + args.samples)
        images += [(f"sample {seed}", SAMPLES, inverter.generate(seed)) for seed in seeds]
        if not images:
            raise ValueError(f"nothing to measure: no photo in {args.photos}, no faces, and no samples")
        folder = BUILD / "bench" / "quality"
        measured = Reconstructions(inverter, mean_style(transport), judged_by, options, folder)
        results, rows = measure(measured, images, plan)
    steps = options.steps or PRESETS[options.preset].steps
    budget = f" and {options.seconds:g} s" if options.seconds else ""
    note = f"Refined with the preset {options.preset}, at most {steps} steps{budget} each."
    own: OwnEdits = {}
    if any(r.edits for r in results):
        own = own_edits(load_generator(DEFAULT_DOMAIN), judged_by.edit, EFFECTS)
    text = markdown(results, own, note=note if "refined" in args.methods else "")
    sheet = jpeg(strips(rows), quality=88)
    write_all({args.out / "quality.md": text.encode(), args.out / SHEET: sheet})
    if args.write:
        write_all({args.write.with_name(SHEET): sheet})
        page.write(args.write, text, MARK)
    print(text)


def planned(args: argparse.Namespace) -> dict[str, list[str]]:
    """The methods of each variant to measure, in the order of the tables.

    Raises:
        ValueError: an option would have no effect.
    """
    if "refined" not in args.methods and (args.steps or args.seconds or args.refined_variants):
        raise ValueError("`--steps`, `--seconds` and `--refined-variants` need the method `refined`")
    variants = args.variants or list(VARIANTS)
    refined = args.refined_variants or variants
    if not set(refined) <= set(variants):
        raise ValueError("`--refined-variants` must be among `--variants`")
    methods = {
        variant: [m for m in METHODS if m in args.methods and (m != "refined" or variant in refined)]
        for variant in VARIANTS
        if variant in variants
    }
    return {variant: names for variant, names in methods.items() if names}


def judges() -> Judges:
    """The judges of reconstructions and edits."""
    likeness = LikenessJudge()
    return Judges(likeness, EditJudge(likeness.judge), likeness.judge.face)


def measure(
    measured: Reconstructions, images: Sequence[Picture], plan: Mapping[str, Sequence[str]]
) -> tuple[list[Result], list[Row]]:
    """Measure each image in each variant by its methods; also returns the rows of the contact sheet.

    What is not a sample is edited by every method but the mean, and is a row, as are the first samples, all plain.
    """
    results, rows = list[Result](), list[Row]()
    samples = [name for name, group, _ in images if group == SAMPLES][:ROWS]
    with tqdm(total=len(images) * len(plan), desc="targets", disable=None) as bar:
        for target in targets(images, list(plan)):
            plain = target.variant == "plain"
            row = Row([(target.name, target.image)])
            for method, code in measured.codes(target.image, plan[target.variant]):
                kept, edits = measured.judged(target.image, code), MeasuredEdits()
                row.pictures.append((method, kept.picture()))
                if plain and target.group != SAMPLES and method != "mean":
                    edits = measured.edited(target.image, code)
                    row.edits = [(f"{method}, {name}", edits[STRENGTH][name][1].picture()) for name in SHOWN]
                    row.eyes = measured.eyes(target.image, code)
                judged = {
                    strength: {name: (low.edit(), high.edit()) for name, (low, high) in ends.items()}
                    for strength, ends in edits.items()
                }
                results.append(Result(target.name, target.group, target.variant, method, kept.quality(), judged))
            if plain and (target.group != SAMPLES or target.name in samples):
                rows.append(row)
            bar.update()
    return results, rows
