"""Recipes: the paper's to the letter, and what options may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.limits import ContractError
from protocol.options import MAX_STEPS, Options
from protocol.terms import TERMS
from sidecar.optimise.recipe import FULL, PRESETS, SHORT_FIRST, Stage, chosen


def test_the_paper_preset_is_the_official_recipe() -> None:
    recipe = chosen(Options(preset="paper"))
    assert recipe.weights == {"mse": 1, "perceptual": 10, "f": 10, "p_norm": 0.01}
    assert (recipe.steps, recipe.rate_f, recipe.rate_w) == (1200, 0.01, 0.01)
    assert recipe.from_mean
    assert recipe.betas == (0.9, 0.999)
    assert not recipe.whitened
    assert not recipe.half
    assert recipe.stages == ()
    assert {recipe.rate(step / 1200, step) for step in range(1200)} == {1.0}


def test_options_override_the_preset() -> None:
    recipe = chosen(Options(steps=7, seconds=1.5, target=0.1, weights={"f": 0.0}))
    assert (recipe.steps, recipe.seconds, recipe.target) == (7, 1.5, 0.1)
    assert recipe.weights == {**PRESETS["default"].weights, "f": 0.0}
    assert PRESETS["default"].weights["f"] == 10


def test_images_are_compared_coarse_to_fine() -> None:
    recipe = chosen(Options())
    assert [recipe.stage(done).side for done in (0.0, 0.09, 0.1, 0.19, 0.2, 0.34, 0.35, 1.0)] == [
        *(64, 64, 128, 128, 256, 256),
        *(None, None),
    ]
    assert chosen(Options(preset="paper")).stage(0.0) == FULL


def test_most_steps_are_small_and_most_time_is_not() -> None:
    recipe = replace(chosen(Options()), stages=SHORT_FIRST)
    stages = [recipe.stage(recipe.progress(step / recipe.steps)) for step in range(recipe.steps)]
    short = sum(stage.short for stage in stages)
    assert short > 0.7 * recipe.steps
    # The whole steps come last.
    assert [stage.short for stage in stages] == [True] * short + [False] * (recipe.steps - short)
    assert sum(stage.cost for stage in stages if stage.short) < 0.6 * sum(stage.cost for stage in stages)


@given(st.lists(st.floats(0.01, 0.99), max_size=3, unique=True), st.floats(0.01, 2.0), st.integers(1, 500))
def test_progress_goes_from_nothing_to_all(untils: list[float], cost: float, steps: int) -> None:
    stages = tuple(Stage(until=until, side=64, cost=cost) for until in sorted(untils))
    recipe = replace(chosen(Options()), stages=stages)
    found = [recipe.progress(step / steps) for step in range(steps + 1)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0.0, pytest.approx(1.0))


@given(st.integers(1, MAX_STEPS))
def test_the_rates_rise_and_fall_to_nothing(steps: int) -> None:
    recipe = chosen(Options(steps=steps))
    rates = [recipe.rate(step / steps, step) for step in range(0, steps, max(1, steps // 50))]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert recipe.rate(1.0, max(steps, recipe.warmup)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "Paper"}, "unknown preset `Paper`: expected paper, default, im2s, idinvert"),
        ({"preset": ""}, "unknown preset ``"),
        ({"preset": "\n" + 1000 * "x"}, rf"unknown preset `\\n{39 * 'x'}`"),
        ({"steps": 0}, "steps 0: expected a whole number from 1 to 10000"),
        ({"steps": 10_001}, "steps 10001: expected"),
        ({"seconds": 0.0}, "seconds 0: expected a number above 0"),
        ({"seconds": float("nan")}, "seconds nan: expected"),
        ({"seconds": float("inf")}, "seconds inf: expected"),
        ({"target": -0.1}, "distance -0.1: expected a number above 0"),
        ({"target": 11.0}, "distance 11: expected a number above 0 and up to 10"),
        ({"clip": 0.0}, "bound of P-norm\\+ 0: expected a number above 0"),
        ({"clip": 1001.0}, "1001: expected a number above 0 and up to 1000"),
        ({"preset": "im2s"}, r"im2s refines W\+: for F/W\+, choose paper or default"),
        ({"weights": {"lpips": 1.0}}, "unknown loss term `lpips`: expected mse"),
        ({"weights": {"mse": -1.0}}, "weight of mse -1: expected a number from 0"),
        ({"weights": {"p_norm": float("nan")}}, "p_norm nan: expected"),
        ({"weights": {"f": 2e6}}, "f 2e\\+06: expected"),
    ],
)
def test_what_is_out_of_range_is_refused_in_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        chosen(Options(**options))
    assert str(caught.value).count("\n") == 0


def test_a_preset_of_another_space_is_refused() -> None:
    assert chosen(Options(preset="idinvert"), cut=4).weights["domain"] == 40
    with pytest.raises(ContractError, match=r"default refines F/W\+: for W\+, choose im2s or idinvert"):
        chosen(Options(), cut=4)


def test_a_bound_of_p_norm_takes_the_place_of_its_term() -> None:
    assert (chosen(Options()).hold, chosen(Options()).weights["p_norm"]) == (None, 0.01)
    held = chosen(Options(clip=2.5))
    assert (held.hold, held.weights["p_norm"]) == (2.5, 0)
    assert chosen(Options(clip=2.5, weights={"p_norm": 0.5})).weights["p_norm"] == 0.5


def test_every_preset_weighs_terms_that_there_are() -> None:
    assert all(set(recipe.weights) <= set(TERMS) and recipe.weights["mse"] for recipe in PRESETS.values())
