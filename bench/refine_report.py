"""Report of ``bench.refine``: Markdown tables and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import matplotlib as mpl

from bench.table import head, mean, row
from judges.reconstruction import Quality
from sidecar.optimise.recipe import Stage

PAPER, DEFAULT = "paper", "default"


@dataclass(frozen=True)
class Point:
    """Progress of a job: the paper's loss and its terms, in float32, and ST-LPIPS (Alex)."""

    step: int
    loss: float
    mse: float
    perceptual: float
    f: float
    p_norm: float
    alex: float


@dataclass(frozen=True)
class Rate:
    """Steps per second of all jobs, by round; in one stage of the recipe."""

    recipe: str
    batch: int
    stage: Stage
    rates: tuple[float, ...]


Curves = Mapping[str, Mapping[str, Sequence[Point]]]


def reached(points: Sequence[Point], loss: float) -> float | None:
    """Steps until a curve is at most ``loss``, interpolated between its points; None if it never is."""
    for before, after in pairwise(points):
        if after.loss <= loss:
            share = 0.0 if before.loss == after.loss else (before.loss - loss) / (before.loss - after.loss)
            return before.step + max(0.0, share) * (after.step - before.step)
    return None


def elapsed(seconds: Sequence[float], steps: float) -> float:
    """Seconds after a number of steps, interpolated; ``seconds`` are after 0, 1, 2, ... steps."""
    whole = min(int(steps), len(seconds) - 2)
    return seconds[whole] + (steps - whole) * (seconds[whole + 1] - seconds[whole])


def markdown(
    curves: Curves,
    ends: Mapping[str, Mapping[str, Quality]],
    seconds: Mapping[str, Sequence[float]],
    rates: Sequence[Rate],
    ratios: Sequence[float],
    *,
    note: str,
) -> str:
    """Tables of the time to the paper's loss, the speeds, and the queued jobs.

    Args:
        curves: points by recipe and target.
        ends: quality of the last pictures, by recipe and target.
        seconds: after 0, 1, 2, ... steps, by recipe.
        rates: steps per second, by recipe, batch and resolution.
        ratios: time of eight jobs one by one over batched, by round.
        note: describes the machine.
    """
    titles = ["recipe", "target", "steps", "s a step", "loss", "ST-LPIPS Alex", "PSNR 256", "identity", "landmarks"]
    lines = head([*titles, "steps to the paper's loss", "seconds to it", "paper's seconds over these"])
    for name, per in curves.items():
        for target, points in per.items():
            last, step_s = points[-1], seconds[name][points[-1].step] / points[-1].step
            cells = [name, target, str(last.step), f"{step_s:.2f}", f"{last.loss:.3f}", f"{last.alex:.4f}"]
            end = ends[name][target]
            cells += [f"{end.psnr_256:.1f}", mean([end.identity], ".2f"), mean([end.landmarks], ".3f")]
            paper = curves.get(PAPER, {}).get(target)
            steps = reached(points, paper[-1].loss) if paper else None
            if steps is None or paper is None:
                cells += ["-", "-", "-"]
            else:
                needed = elapsed(seconds[name], steps)
                speedup = elapsed(seconds[PAPER], paper[-1].step) / needed
                cells += [f"{steps:.0f}", f"{needed:.0f}", f"**{speedup:.1f}**"]
            lines.append(row(cells))
    lines += ["", *head(["recipe", "compared at", "jobs at once", "steps/s, all jobs", "min..max"])]
    for r in rates:
        size = f"{r.stage.side} px" if r.stage.side else "full size"
        side = f"{size}, short head" if r.stage.short else size
        spread = f"{median(r.rates):.2f} | {min(r.rates):.2f}..{max(r.rates):.2f}"
        lines.append(f"| {r.recipe} | {side} | {r.batch} | {spread} |")
    middle, low, high = median(ratios), min(ratios), max(ratios)
    lines += ["", f"Eight jobs, one by one over batches of four: {middle:.2f} ({low:.2f}..{high:.2f}).", "", note, ""]
    return "\n".join(lines)


def plot(curves: Curves, seconds: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plot distance against seconds, a line per recipe, mean over the targets, as a PNG file."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for axis, field, title in zip(axes, ("loss", "alex"), ("the paper's loss", "ST-LPIPS (Alex)"), strict=True):
        for name, per in curves.items():
            shortest = min(len(points) for points in per.values())
            columns = list(zip(*(points[:shortest] for points in per.values()), strict=True))
            x = [elapsed(seconds[name], max(column[0].step, 0.5)) for column in columns]
            y = [fmean(getattr(point, field) for point in column) for column in columns]
            style = {"linewidth": 2.5} if name in (PAPER, DEFAULT) else {"linewidth": 1.2, "alpha": 0.8}
            axis.plot(x, y, label=name, **style)
            if name == PAPER:
                axis.axhline(y[-1], color="grey", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="seconds of optimisation", ylabel=title)
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
