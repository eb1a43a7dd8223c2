"""Quality of reconstructions by running servers: ``python -m bench quality``.

Targets are photos and generator samples, plain and moved (`bench.targets`), inverted through the client. Results are
cached under ``build/bench/quality`` (`bench.reconstructions`), so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from assets.paths import BUILD, ROOT
from bench import page
from bench.quality_report import SHEET, Result, Row, markdown, strips
from bench.reconstructions import METHODS, Measurement, Reconstructions, mean_style
from bench.targets import FIRST_SEED, VARIANTS, Image8, photos, targets
from client.api import DEFAULT_REFINE_URL, DEFAULT_URL, Inverter
from client.atomic import write_all
from client.files.record import RefineOptions
from client.files.sheet import jpeg
from client.triton.grpc_sync import TritonTransport
from judges.reconstruction import Judge
from sidecar.optimise.recipe import PRESETS

MARK = "quality"
# Rows of the contact sheet per group.
ROWS = 4
# Name, group, and pixels: uint8 RGB [1024, 1024, 3].
Picture = tuple[str, str, Image8]
Measure = Callable[[Image8, Sequence[str]], Iterable[tuple[str, Measurement]]]


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
    transport = TritonTransport(args.url)
    with Inverter(args.url, transport=transport, refine_url=args.refine_url) as inverter:
        images: list[Picture] = [(f"photo {name}", "photos", image) for name, image in photos(args.photos)]
        seeds = range(FIRST_SEED, FIRST_SEED + args.samples)
        images += [(f"sample {seed}", "samples", inverter.generate(seed)) for seed in seeds]
        if not images:
            raise ValueError(f"nothing to measure: no photo in {args.photos}, and no samples")
        folder = BUILD / "bench" / "quality"
        measured = Reconstructions(inverter, mean_style(transport), Judge(), options, folder)
        results, rows = measure(measured, images, plan)
    steps = options.steps or PRESETS[options.preset].steps
    budget = f" and {options.seconds:g} s" if options.seconds else ""
    note = f"Refined with the preset {options.preset}, at most {steps} steps{budget} each."
    text = markdown(results, note=note if "refined" in args.methods else "")
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


def measure(
    measured: Measure, images: Sequence[Picture], plan: Mapping[str, Sequence[str]]
) -> tuple[list[Result], list[Row]]:
    """Measure each image in each variant by its methods; also returns the rows of the contact sheet."""
    wanted, results, rows = shown(images, plan), [], []
    with tqdm(total=len(images) * len(plan), desc="targets", disable=None) as bar:
        for target in targets(images, list(plan)):
            row = [(f"{target.name}, {target.variant}", target.image)]
            for method, kept in measured(target.image, plan[target.variant]):
                results.append(Result(target.name, target.group, target.variant, method, kept.quality()))
                row.append((method, kept.picture()))
            if (target.name, target.variant) in wanted:
                rows.append(row)
            bar.update()
    return results, rows


def shown(images: Sequence[Picture], plan: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    """Name and variant of the targets on the contact sheet: the first of each group, in different variants."""
    most = max(len(methods) for methods in plan.values())
    variants = [variant for variant, methods in plan.items() if len(methods) == most]
    names = []
    for group in dict.fromkeys(group for _, group, _ in images):
        names += [name for name, group_, _ in images if group_ == group][:ROWS]
    return {(name, variants[i % len(variants)]) for i, name in enumerate(names)}
