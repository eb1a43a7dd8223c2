"""The command ``python -m bench paper``: options and run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tqdm import tqdm

from assets.paths import REPOSITORY, ROOT
from bench import page
from bench.paper import report
from bench.paper.cases import DEGREES, QUICK, Case, Photos, figure_one, figure_two, read_photos
from bench.paper.contenders import CONTENDERS
from bench.paper.measures import Measures
from bench.paper.runs import Edit, Runs
from bench.targets import FIRST_SEED, Image8
from client.api import Inverter
from server.sidecar import LocalSidecar
from server.triton import LocalTriton

# About an hour on two cores.
STEPS, FACES, SAMPLES = 40, 1, 1
FULL = 50
DIRECTION, STRENGTH = "age", 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench paper``."""
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="a folder of photos")
    add(
        "--full",
        action="store_true",
        help=f"the paper's setup: {FULL} faces, every degree, and the steps of each recipe",
    )
    add("--faces", type=int, help=f"number of photos whose aligned faces are moved, for Figure 1 (default: {FACES})")
    add("--samples", type=int, help=f"number of generator samples to move as well (default: {SAMPLES})")
    add("--steps", type=int, help=f"steps per refinement (default: {STEPS})")
    add(
        "--methods", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME",
        help=f"methods, of {', '.join(CONTENDERS)} (default: all)",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="seed of the directions in which faces are moved (default: 0)")
    add(
        "--out",
        type=Path,
        default=ROOT / "out" / "paper",
        help="folder for the report and the cache (default: out/paper)",
    )
    add(
        "--write", type=Path, metavar="FILE", help=f"also write the report between the marks of {report.MARK} in a file"
    )
    add(
        "--url",
        default=os.environ.get("UNALIGNED_URL"),
        help="gRPC endpoint of Triton (default: $UNALIGNED_URL, else start one)",
    )
    add(
        "--refine-url", default=os.environ.get("UNALIGNED_REFINE_URL"),
        help="gRPC endpoint of the side-car (default: $UNALIGNED_REFINE_URL, else start one)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Invert, edit and measure what is not cached, and write the report.

    Raises:
        ValueError: there is no photo, or an option is out of range.
    """
    faces, count, steps, degrees = planned(args)
    page.check(args.write, report.MARK)
    photos = read_photos(args.photos, most=FULL)
    with servers(args.url, args.refine_url) as (url, refine_url), Inverter(url, refine_url=refine_url) as inverter:
        samples = {f"sample {seed}": inverter.generate(seed) for seed in range(FIRST_SEED, FIRST_SEED + count)}
        cases = plan(photos, faces=faces, samples=samples, degrees=degrees, seed=args.seed)
        runs = Runs(inverter, Measures(), args.out / "kept", steps=steps, edit=Edit(DIRECTION, STRENGTH))
        records = []
        with tqdm(total=len(cases) * len(args.methods), desc="inversions", disable=None) as bar:
            for case in cases:
                for key in (key for key in CONTENDERS if key in args.methods):
                    bar.set_postfix_str(f"{case.name}, {key}")
                    records.append(runs(case, key))
                    bar.update()
        generator = inverter.status().generator
    budget = "the steps of its recipe" if steps is None else f"{steps} steps"
    setting = (
        f"Generator {generator}. Each refinement has {budget}; the edit is `{DIRECTION}` by {STRENGTH:g}. Made by "
        "`python -m bench paper`."
    )
    path = report.write(records, args.out, notes(photos), setting=setting, document=args.write)
    print(f"{len(records)} inversions: {path}")
    for note in notes(photos):
        print(note)


def planned(args: argparse.Namespace) -> tuple[int, int, int | None, Mapping[str, Sequence[float]]]:
    """Faces, samples, steps and degrees of a run."""
    for name in ("faces", "samples", "steps"):
        if (value := getattr(args, name)) is not None and value < (1 if name == "steps" else 0):
            raise ValueError(f"`--{name} {value}` is too small")
    if args.full:
        faces = FULL if args.faces is None else args.faces
        return faces, args.samples or 0, args.steps, DEGREES
    faces = FACES if args.faces is None else args.faces
    return faces, SAMPLES if args.samples is None else args.samples, args.steps or STEPS, QUICK


def plan(
    photos: Photos,
    *,
    faces: int,
    samples: Mapping[str, Image8],
    degrees: Mapping[str, Sequence[float]],
    seed: int,
) -> list[Case]:
    """All cases. Unmoved photos come first: they give a first impression soonest."""
    chosen = dict(list(photos.faces.items())[:faces])
    return [
        *figure_two(photos.squares),
        *figure_one(chosen, "photos", degrees, seed=seed),
        *figure_one(samples, "samples", degrees, seed=seed),
    ]


def notes(photos: Photos) -> list[str]:
    """Notes on photos that were skipped, or only measured in part."""
    lines = [f"Skipped: {message}" for message in photos.unreadable]
    if photos.faceless:
        lines.append(f"No face in {', '.join(photos.faceless)}: identity and landmarks are not measured.")
    return lines


@contextmanager
def servers(url: str | None, refine_url: str | None) -> Iterator[tuple[str, str]]:
    """The two endpoints; servers without a given URL are started, and stopped at the end."""
    with ExitStack() as stack:
        sidecar = None
        if refine_url is None:
            sidecar = LocalSidecar()
            stack.callback(sidecar.stop)
            sidecar.launch()
        if url is None:
            url = stack.enter_context(LocalTriton(REPOSITORY)).url
        yield url, refine_url or (sidecar.ready().url if sidecar else "")
