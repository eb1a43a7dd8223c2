"""What ``bench.refine`` found, as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import matplotlib as mpl

from judges.reconstruction import Quality

PAPER, DEFAULT = "paper", "default"


@dataclass(frozen=True)
class Point:
    """How far a job has come: the paper's loss and its terms, in float32, and ST-LPIPS (Alex)."""

    step: int
    loss: float
    mse: float
    perceptual: float
    f: float
    p_norm: float
    alex: float


@dataclass(frozen=True)
class Rate:
    """Jobs' steps per second, round by round."""

    recipe: str
    batch: int
    rates: tuple[float, ...]


Curves = Mapping[str, Mapping[str, Sequence[Point]]]


def reached(points: Sequence[Point], loss: float) -> float | None:
    """Steps after which a curve is at most ``loss``, interpolated between its points; None where it never is."""
    for before, after in pairwise(points):
        if after.loss <= loss:
            share = 0.0 if before.loss == after.loss else (before.loss - loss) / (before.loss - after.loss)
            return before.step + max(0.0, share) * (after.step - before.step)
    return None


def markdown(
    curves: Curves,
    ends: Mapping[str, Mapping[str, Quality]],
    seconds: Mapping[str, float],
    rates: Sequence[Rate],
    ratios: Sequence[float],
    *,
    note: str,
) -> str:
    """Tables of the time to the paper's loss, of the speeds, and of the queued jobs.

    Args:
        curves: points by recipe and target.
        ends: how good the last pictures are, likewise.
        seconds: per step, by recipe.
        rates: steps per second, by recipe and batch.
        ratios: of eight jobs one by one over batched, round by round.
        note: on the machine.
    """
    lines = [
        "| recipe | target | steps | s a step | loss | ST-LPIPS Alex | PSNR 256 | identity | landmarks "
        "| steps to the paper's loss | seconds to it | paper's seconds over these |",
        "|---" * 12 + "|",
    ]
    for name, per in curves.items():
        for target, points in per.items():
            last, step = points[-1], seconds[name]
            cells = [name, target, str(last.step), f"{step:.2f}", f"{last.loss:.3f}", f"{last.alex:.4f}"]
            end = ends[name][target]
            cells += [f"{end.psnr_256:.1f}", _number(end.identity, ".2f"), _number(end.landmarks, ".3f")]
            paper = curves.get(PAPER, {}).get(target)
            steps = reached(points, paper[-1].loss) if paper else None
            if steps is None or paper is None:
                cells += ["-", "-", "-"]
            else:
                speedup = paper[-1].step * seconds[PAPER] / (steps * step)
                cells += [f"{steps:.0f}", f"{steps * step:.0f}", f"**{speedup:.1f}**"]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| recipe | jobs at once | steps/s, all jobs | min..max |", "|---|---|---|---|"]
    lines += [
        f"| {r.recipe} | {r.batch} | {median(r.rates):.2f} | {min(r.rates):.2f}..{max(r.rates):.2f} |" for r in rates
    ]
    middle, low, high = median(ratios), min(ratios), max(ratios)
    lines += ["", f"Eight jobs, one by one over batches of four: {middle:.2f} ({low:.2f}..{high:.2f}).", "", note, ""]
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def plot(curves: Curves, seconds: Mapping[str, float], path: Path) -> None:
    """Distance against seconds, one line a recipe, the mean over the targets, as a PNG file."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for axis, field, title in zip(axes, ("loss", "alex"), ("the paper's loss", "ST-LPIPS (Alex)"), strict=True):
        for name, per in curves.items():
            shortest = min(len(points) for points in per.values())
            columns = list(zip(*(points[:shortest] for points in per.values()), strict=True))
            x = [max(column[0].step * seconds[name], seconds[name] / 2) for column in columns]
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
