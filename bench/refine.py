"""Speed and convergence of the refinement: ``python -m bench refine``, in this process, without a server.

Targets are photos and rotated generator samples. Every recipe starts from the ``f`` of the code that ``invert`` serves,
and from the mean style or the code's styles, whichever it specifies. Two things are measured separately, because other
load on the machine affects times but not distances:

- **Curves**: distance after a number of steps. Cached under ``build/bench/refine``; an interrupted run continues.
- **Speed**: seconds per step at each resolution that a recipe compares images at, with the recipes in turn in each
  round; and eight jobs in batches, compared with one by one.

A curve over seconds combines the two. Distances are measured in float32, apart from the optimisation: the paper's loss
with the paper's weights, which makes recipes comparable, and ST-LPIPS (Alex), which no recipe minimises.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import accumulate
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from assets.allocator import keep_freed
from assets.paths import BUILD, ROOT
from assets.perceptual import stlpips
from bench.coders import shipped
from bench.refine_report import Point, Rate, markdown, plot
from bench.targets import DEGREES, FIRST_SEED, Image8, Move, moved, photos
from client.atomic import write_all
from client.files.sheet import png, sheet
from export.generator import load_generator
from export.serve.graph import sent
from judges.reconstruction import Judge, shrunk
from networks.pixels import from_array
from networks.similarity import IDENTITY
from protocol.messages import State
from protocol.terms import Terms
from sidecar.job import Start
from sidecar.optimise.engine import TorchEngine, load_engine
from sidecar.optimise.recipe import FULL, PAPER_WEIGHTS, PRESETS, SHORT_FIRST, Recipe, Stage

MARKS = (0, 5, 10, 20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
BATCHES = (1, 4)
JOBS = 8


_PAPER, _DEFAULT = PRESETS["paper"], PRESETS["default"]
# The paper's recipe, ours, and ablations.
RECIPES: Mapping[str, Recipe] = {
    "paper": _PAPER,
    "default": _DEFAULT,
    "paper in bfloat16": replace(_PAPER, half=True),
    "default with the paper's weights": replace(_DEFAULT, weights=PAPER_WEIGHTS),
    "default on w": replace(_DEFAULT, whitened=False, rate_w=0.02),
    "default at full size": replace(_DEFAULT, stages=()),
    "default, small steps first": replace(_DEFAULT, stages=SHORT_FIRST),
    "default without the face": replace(_DEFAULT, weights={**PAPER_WEIGHTS, "mse": 20.0}),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """A target: its name, the key of its cache entries, and the start of every recipe."""

    name: str
    key: bytes
    start: Start


def cases(folder: Path, *, count: int, samples: int) -> list[Problem]:
    """The first photos of a folder, and generator samples rotated by 20 degrees."""
    images = [(f"photo {name}", image.tobytes(), image) for name, image in photos(folder)][:count]
    generator = load_generator("ffhq")
    coder = shipped(generator)[-1]
    learned = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in coder.files)
    with torch.no_grad():
        for seed in range(FIRST_SEED, FIRST_SEED + samples):
            z = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, 512), np.float32))
            w_plus = generator.mapping(z, 0.7)[:, None].expand(-1, generator.synthesis.num_styles, -1)
            image = sent(generator.synthesis(w_plus))[0].numpy()
            # The pixels cannot be the key: their last bits depend on the number of threads.
            turned = moved(image, Move(degrees=DEGREES))
            images.append((f"sample {seed}, rotated", f"{seed} {DEGREES}".encode(), turned))
        found = []
        for name, key, image in images:
            code = coder(from_array(shrunk(image)), IDENTITY[None])
            f = code.f[0].numpy()
            found.append(Problem(name, key + learned, Start(target=image, f=f, w_m_plus=code.w[0].numpy(), f_o=f)))
    return found


class Meter:
    """Measures how far states are from their targets."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine, self._alex = engine, stlpips("alex")

    @torch.no_grad()
    def __call__(self, start: Start, state: State) -> tuple[Point, Image8]:
        """The distance of a state, and its picture, uint8 [S, S, 3]."""
        parts = asdict(self._engine.terms(start, state))
        image = self._engine.render(state)
        small, small_target = (from_array(shrunk(x)) for x in (image, start.target))
        return Point(state.step, parts.pop("total"), **parts, alex=float(self._alex(small, small_target))), image


@dataclass(frozen=True)
class Curve:
    """A cached curve: its points, the last state and the last picture."""

    folder: Path

    def points(self) -> list[Point]:
        """The points so far."""
        path = self.folder / "points.json"
        return [Point(**point) for point in json.loads(path.read_text())] if path.exists() else []

    def image(self) -> Image8:
        """The picture at the last point."""
        with Image.open(self.folder / "reconstruction.png") as picture:
            return np.asarray(picture)

    def state(self) -> State:
        """The state at the last point."""
        with np.load(self.folder / "state.npz") as arrays:
            optimiser = {name.removeprefix("o."): arrays[name] for name in arrays.files if name.startswith("o.")}
            terms = Terms(*arrays["terms"].tolist()) if "terms" in arrays.files else None
            return State(int(arrays["step"]), 0.0, arrays["f"], arrays["w_m_plus"], optimiser, terms)

    def add(self, points: Sequence[Point], state: State, image: Image8) -> None:
        """Replace the cached curve."""
        optimiser = {f"o.{name}": value for name, value in state.optimiser.items()}
        terms = {"terms": np.array(astuple(state.terms))} if state.terms else {}
        buffer = io.BytesIO()
        arrays = {"step": np.array(state.step), "f": state.f, "w_m_plus": state.w_m_plus, **optimiser, **terms}
        np.savez(buffer, allow_pickle=False, **arrays)
        # The points are written last: they mark the rest as complete.
        files = {"reconstruction.png": png(image), "state.npz": buffer.getvalue()}
        files["points.json"] = json.dumps([asdict(point) for point in points]).encode()
        write_all({self.folder / name: data for name, data in files.items()})


def curve(engine: TorchEngine, meter: Meter, case: Problem, recipe: Recipe, cache: Path) -> Curve:
    """Measure the distances of a job at ``MARKS`` and at its end, unless they are cached."""
    digest = hashlib.sha256(repr((recipe, engine.generator)).encode() + case.key)
    kept = Curve(cache / digest.hexdigest()[:20])
    points = kept.points()
    done = points[-1].step if points else -1
    if done >= recipe.steps:
        return kept
    job = engine.begin(case.start, recipe, kept.state() if points else None)
    marks = [mark for mark in (*MARKS, recipe.steps) if done < mark <= recipe.steps]
    with tqdm(total=recipe.steps, initial=max(done, 0), desc=case.name, leave=False, disable=None) as bar:
        for mark in dict.fromkeys(marks):
            while job.reason is None and job.step < mark:
                engine.run([job], min(10, mark - job.step))
                bar.update(job.step - bar.n)
            point, image = meter(case.start, job.state())
            points.append(point)
            kept.add(points, job.state(), image)
            if job.reason is not None:
                break
    return kept


def speeds(engine: TorchEngine, case: Problem, recipes: Mapping[str, Recipe], *, rounds: int, steps: int) -> list[Rate]:
    """Steps per second of each recipe, batch size and resolution, in turn in each round, after a warm-up."""
    found: dict[tuple[str, int, Stage], list[float]] = {
        (name, batch, stage): []
        for name, recipe in recipes.items()
        for batch in BATCHES
        for stage in (*recipe.stages, FULL)
    }
    for number in range(rounds + 1):
        for (name, batch, stage), rates in found.items():
            recipe = replace(recipes[name], stages=() if stage == FULL else (replace(stage, until=2.0),))
            jobs = [engine.begin(case.start, recipe) for _ in range(batch)]
            began = time.perf_counter()
            engine.run(jobs, steps)
            if number:
                rates.append(batch * steps / (time.perf_counter() - began))
    return [Rate(name, batch, stage, tuple(rates)) for (name, batch, stage), rates in found.items()]


def clock(recipe: Recipe, rates: Mapping[Stage, float]) -> list[float]:
    """Seconds after 0, 1, 2, ... steps of a recipe.

    Args:
        recipe: number of steps, and their stages.
        rates: steps per second, by stage.
    """
    steps = (1 / rates[recipe.stage(recipe.progress(step / recipe.steps))] for step in range(recipe.steps))
    return [0.0, *accumulate(steps)]


def queued(engine: TorchEngine, case: Problem, recipe: Recipe, *, rounds: int, steps: int) -> list[float]:
    """Eight jobs: time one by one over time in batches of four, by round."""
    ratios = []
    for _ in range(rounds):
        seconds = {}
        for size in (1, 4):
            jobs = [engine.begin(case.start, recipe) for _ in range(JOBS)]
            began = time.perf_counter()
            for i in range(0, JOBS, size):
                engine.run(jobs[i : i + size], steps)
            seconds[size] = time.perf_counter() - began
        ratios.append(seconds[1] / seconds[4])
    return ratios


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench refine``."""
    folder = ROOT.parent / "shared" / "photos"
    parser.add_argument("--photos", type=Path, default=folder, help="a folder of photos (default: ../shared/photos)")
    parser.add_argument("--count", type=int, default=1, help="number of photos (default: %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=1, help="number of rotated generator samples (default: %(default)s)"
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["paper", "default"],
        choices=list(RECIPES),
        metavar="NAME",
        help=f"recipes, of {', '.join(RECIPES)} (default: paper default)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the speed measurements (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps per measurement of speed (default: %(default)s)")
    parser.add_argument("--curves-only", action="store_true", help="measure only the curves, without a report")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="device (default: auto)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out", help="folder for refine.md, the plot and the sheet (default: out)"
    )


def run(args: argparse.Namespace) -> None:
    """Measure, print the tables, and write them with the plot and the contact sheet."""
    keep_freed()  # as the side-car does
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    recipes = {name: RECIPES[name] for name in args.recipes}
    chosen = cases(args.photos, count=args.count, samples=args.samples)
    if not chosen:
        raise ValueError(f"nothing to measure: no photo in {args.photos}, and no samples")
    engine = load_engine(device=args.device)
    meter, cache = Meter(engine), BUILD / "bench" / "refine"
    found: dict[str, dict[str, Curve]] = {}
    for name, recipe in tqdm(recipes.items(), desc="recipes", disable=None):
        found[name] = {case.name: curve(engine, meter, case, recipe, cache) for case in chosen}
    if args.curves_only:
        return
    rates = speeds(engine, chosen[0], recipes, rounds=args.rounds, steps=args.steps)
    ratios = queued(engine, chosen[0], replace(PRESETS["default"], stages=()), rounds=args.rounds, steps=args.steps)
    alone = {name: {r.stage: median(r.rates) for r in rates if (r.recipe, r.batch) == (name, 1)} for name in recipes}
    seconds = {name: clock(recipe, alone[name]) for name, recipe in recipes.items()}
    curves = {name: {target: kept.points() for target, kept in per.items()} for name, per in found.items()}
    judge = Judge()
    ends = {
        name: {case.name: judge(case.start.target, per[case.name].image()) for case in chosen}
        for name, per in found.items()
    }
    machine = f"{os.cpu_count()} CPU cores ({platform.system()} {platform.machine()}), device {engine.device}"
    text = markdown(
        curves, ends, seconds, rates, ratios, note=f"{machine}, PyTorch {torch.__version__}, load before {load:.1f}."
    )
    write_all({args.out / "refine.md": text.encode()})
    plot(curves, seconds, args.out / "refine.png")
    pictures = []
    for case in chosen:
        pictures.append((case.name, case.start.target))
        pictures += [(name, found[name][case.name].image()) for name in PRESETS if name in found]
    sheet(pictures).reduce(2).save(args.out / "refine-sheet.png")
    print(text)
