"""``bench refine``: interrupted curves, and the figures of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.refine import RECIPES, Curve, Problem, clock, curve
from bench.refine_report import Point, Rate, elapsed, markdown, plot, reached
from judges.reconstruction import Quality
from protocol.messages import State
from protocol.terms import Terms
from sidecar.job import Image8, Start
from sidecar.optimise.recipe import FULL, PRESETS, Recipe, Stage

START = Start(
    target=np.zeros((8, 8, 3), np.uint8),
    f=np.zeros((512, 8, 8), np.float32),
    w_m_plus=np.zeros((14, 512), np.float32),
    f_o=np.zeros((512, 8, 8), np.float32),
)


def point(step: int, loss: float) -> Point:
    return Point(step=step, loss=loss, mse=loss, perceptual=loss, f=0, p_norm=0, alex=loss / 10)


class FakeJob:
    """Counts its steps."""

    def __init__(self, recipe: Recipe, resume: State | None) -> None:
        self.recipe, self.step = recipe, resume.step if resume else 0

    @property
    def reason(self) -> str | None:
        return "steps" if self.step >= self.recipe.steps else None

    def state(self) -> State:
        f = np.full((512, 8, 8), self.step, np.float32)
        return State(self.step, 0.0, f, START.w_m_plus, {"w": START.w_m_plus + self.step}, Terms(1, 2, 3, 4, 5))


class FakeEngine:
    """Takes steps until it is set to fail."""

    generator = "g"

    def __init__(self, *, breaks_at: int = 10**9) -> None:
        self.breaks_at, self.taken = breaks_at, 0

    def begin(self, start: Start, recipe: Recipe, resume: State | None = None) -> FakeJob:
        assert start is START
        if resume is not None:
            assert (resume.f == resume.step).all()
            assert (resume.optimiser["w"] == resume.step).all()
            assert resume.terms == Terms(1, 2, 3, 4, 5)
        return FakeJob(recipe, resume)

    def run(self, jobs: Sequence[FakeJob], steps: int) -> None:
        for job in jobs:
            job.step += steps
            self.taken += steps
            if job.step >= self.breaks_at:
                raise KeyboardInterrupt


def meter(start: Start, state: State) -> tuple[Point, Image8]:
    assert start is START
    return point(state.step, 100 - state.step), np.full((8, 8, 3), state.step, np.uint8)


def test_an_interrupted_curve_continues(tmp_path: Path) -> None:
    recipe, case = replace(PRESETS["default"], steps=70), Problem("case", b"key", START)
    with pytest.raises(KeyboardInterrupt):
        curve(FakeEngine(breaks_at=45), meter, case, recipe, tmp_path)  # type: ignore[arg-type]
    again = FakeEngine()
    kept = curve(again, meter, case, recipe, tmp_path)  # type: ignore[arg-type]
    assert again.taken == 30
    assert [p.step for p in kept.points()] == [0, 5, 10, 20, 30, 40, 50, 60, 70]
    assert kept.image().max() == 70
    unneeded = FakeEngine()
    assert curve(unneeded, meter, case, recipe, tmp_path).points() == kept.points()  # type: ignore[arg-type]
    assert unneeded.taken == 0


def test_another_recipe_has_another_curve(tmp_path: Path) -> None:
    case = Problem("case", b"key", START)
    first, second = (
        curve(FakeEngine(), meter, case, replace(PRESETS["default"], steps=5, rate_f=rate), tmp_path)  # type: ignore[arg-type]
        for rate in (0.1, 0.2)
    )
    assert first.folder != second.folder
    assert Curve(tmp_path / "none").points() == []


def test_the_steps_to_a_loss_are_interpolated() -> None:
    points = [point(0, 9.0), point(10, 5.0), point(20, 1.0)]
    assert reached(points, 3.0) == 15
    assert reached(points, 5.0) == 10
    assert reached(points, 0.5) is None


def test_the_report_says_how_much_less_time_it_takes(tmp_path: Path) -> None:
    curves = {
        "paper": {"photo": [point(0, 9.0), point(1200, 1.0)]},
        "default": {"photo": [point(0, 9.0), point(100, 1.0), point(200, 0.5)]},
        "slow": {"photo": [point(0, 9.0), point(100, 8.0)]},
    }
    seconds = {"paper": [2.0 * n for n in range(1201)], "default": [1.0 * n for n in range(201)]}
    seconds["slow"] = seconds["default"]
    rates = [Rate("paper", 1, FULL, (0.5, 0.4, 0.6)), Rate("default", 4, Stage(side=32, short=True), (1.0,))]
    end = Quality(stlpips_vgg=0, stlpips_alex=0, psnr_256=20.0, psnr=19.0, identity=None, landmarks=0.1234, face=1.0)
    ends = {name: {"photo": end} for name in curves}
    text = markdown(curves, ends, seconds, rates, [1.0, 1.2, 1.1], note="Here.")
    # 1200 steps of 2 s over 100 steps of 1 s.
    assert "| default | photo | 200 | 1.00 | 0.500 | 0.0500 | 20.0 | - | 0.123 | 100 | 100 | **24.0** |" in text
    assert "| slow | photo | 100 | 1.00 | 8.000 | 0.8000 | 20.0 | - | 0.123 | - | - | - |" in text
    assert "| paper | full size | 1 | 0.50 | 0.40..0.60 |" in text
    assert "| default | 32 px, short head | 4 | 1.00 | 1.00..1.00 |" in text
    assert "1.10 (1.00..1.20)" in text
    plot(curves, seconds, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_clock_goes_at_the_speed_of_each_stage() -> None:
    small, middle = Stage(until=0.2, side=32), Stage(until=0.5, side=64)
    recipe = replace(PRESETS["paper"], steps=10, stages=(small, middle))
    seconds = clock(recipe, {small: 4.0, middle: 2.0, FULL: 1.0})
    assert seconds == [0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7]
    assert elapsed(seconds, 1.5) == pytest.approx(0.375)
    assert elapsed(seconds, 10) == 7


def test_the_recipes_are_the_presets_and_what_lies_between() -> None:
    assert RECIPES["paper"] == PRESETS["paper"]
    assert RECIPES["default"] == PRESETS["default"]
    assert len({repr(recipe) for recipe in RECIPES.values()}) == len(RECIPES)
