"""The optimisation: its terms, its coarse steps, and how jobs end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from assets.paths import short_head_file
from assets.perceptual import stlpips
from export.generator import load_generator
from networks.looks_file import load_short_head
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.pixels import from_array
from networks.pnorm import load_pnorm
from protocol.limits import ContractError
from protocol.options import Options
from sidecar.job import Start
from sidecar.optimise.engine import LEARNED, TorchEngine
from sidecar.optimise.recipe import COARSE_TO_FINE, FULL, SHORT_FIRST, Stage, chosen
from tests.sidecar.samples import finish, left, small_engine, small_start


def test_the_terms_are_the_papers(middle: TorchEngine, middle_start: Start) -> None:
    job = middle.open(middle_start, Options(preset="paper", steps=1))
    before = job.state()
    middle.run([job], 1)
    terms = job.state().terms
    assert terms is not None
    pnorm = load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors")
    with torch.no_grad():
        f, w = (torch.from_numpy(x)[None] for x in (before.f, before.w_m_plus))
        image = middle._synthesis.fine(f, w)
        target = from_array(middle_start.target)
        small = [F.interpolate(x, size=(256, 256), mode="area") for x in (image, target)]
        literal = {
            "mse": F.mse_loss(image, target),
            "perceptual": stlpips("alex")(*small)[0],
            "f": torch.zeros(()),
            "p_norm": pnorm(w).square().mean(),
        }
    for name, value in literal.items():
        assert getattr(terms, name) == pytest.approx(float(value), rel=1e-4)
    weighted = literal["mse"] + 10 * literal["perceptual"] + 10 * literal["f"] + 0.01 * literal["p_norm"]
    assert terms.total == pytest.approx(float(weighted), rel=1e-4)
    # Adam's first step moves every coordinate by the learning rate, against the gradient's sign.
    moved = np.abs(job.state().f - before.f)
    assert moved.max() == pytest.approx(0.01, rel=1e-2)
    assert np.median(moved) == pytest.approx(0.01, rel=1e-2)


def test_the_paper_preset_starts_at_the_mean_of_w(engine: TorchEngine, start: Start) -> None:
    elsewhere = replace(start, w_m_plus=start.w_m_plus + 1)
    assert np.array_equal(engine.open(elsewhere, Options(preset="paper")).state().w_m_plus, start.w_m_plus)
    assert not np.allclose(engine.open(elsewhere, Options()).state().w_m_plus, start.w_m_plus, atol=0.5)


def test_a_small_step_compares_what_the_short_head_paints(engine: TorchEngine, start: Start) -> None:
    job = engine.begin(start, replace(chosen(Options(steps=100)), stages=SHORT_FIRST))
    engine.run([job], 1)
    terms = job.state().terms
    assert terms is not None
    pixels = from_array(start.target)
    generator = load_generator("ffhq")
    assert isinstance(generator.synthesis, MobileStyleGAN)
    head = load_short_head(short_head_file("ffhq", 16), generator=generator.fingerprint)
    with torch.no_grad():
        opened = engine.open(start, Options())
        image = head(generator.synthesis.features(opened.f, opened.w_m_plus), opened.w_m_plus[:, -LATE_STYLES:])
        small = [F.interpolate(x, size=(128, 128), mode="area") for x in (image, pixels)]
        mse, perceptual = float(F.mse_loss(*small)), float(stlpips("alex")(*small)[0])
    # The step itself may run in bfloat16.
    assert terms.mse == pytest.approx(mse, rel=0.02)
    assert terms.perceptual == pytest.approx(perceptual, rel=0.05)
    engine.run([job], 5)
    assert job.stage.short
    after = job.state().terms
    assert after is not None
    assert after.total < terms.total


def test_a_coarse_step_compares_reduced_images(middle: TorchEngine, middle_start: Start) -> None:
    job = middle.open(middle_start, Options(steps=10))
    middle.run([job], 1)
    terms = job.state().terms
    assert terms is not None
    pixels = from_array(middle_start.target)
    with torch.no_grad():
        opened = middle.open(middle_start, Options())
        image = middle._synthesis.fine(opened.f, opened.w_m_plus)
        at = {side: [F.interpolate(x, size=(side, side), mode="area") for x in (image, pixels)] for side in (64, 32)}
        mse, perceptual = float(F.mse_loss(*at[64])), float(stlpips("alex")(*at[32])[0])
    # The step itself may run in bfloat16.
    assert terms.mse == pytest.approx(mse, rel=0.02)
    assert terms.perceptual == pytest.approx(perceptual, rel=0.05)


def test_a_job_goes_from_coarse_to_fine_unless_it_has_left_f_o(middle: TorchEngine, middle_start: Start) -> None:
    job, sides = middle.open(middle_start, Options(steps=10)), []
    for _ in range(5):
        sides.append(job.stage.side)
        middle.run([job], 1)
    assert sides == [64, 128, 256, 256, None]
    # A checkpoint that is past the coarse steps stays so, however many steps are added,
    assert middle.open(middle_start, Options(steps=1000), job.state()).stage == FULL
    # and one that is not continues with them, whatever f the request has.
    early = middle.open(middle_start, Options(steps=10))
    middle.run([early], 2)
    assert middle.open(left(middle_start), Options(steps=10), early.state()).stage.side == 256
    assert middle.open(left(middle_start), Options()).stage == FULL
    assert middle.open(middle_start, Options(preset="paper")).stage == FULL


@pytest.mark.slow
def test_it_comes_closer(engine: TorchEngine, start: Start) -> None:
    job = engine.open(start, Options(steps=8))
    begun = job.state()
    first = engine.terms(start, begun)
    engine.run([job], 4)  # one at each size
    last = engine.terms(start, job.state())
    assert last.perceptual < 0.8 * first.perceptual
    assert last.total < first.total
    before = engine.judge(start, begun)
    after = engine.judge(start, job.state())
    assert after.stlpips_alex < before.stlpips_alex
    assert after.face
    assert after.identity is not None
    assert after.landmarks is not None
    assert -1 <= after.identity <= 1
    assert engine.preview(job.state()).shape == (256, 256, 3)


def test_warming_up_takes_a_step_of_each_size(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the steps themselves do is tested above."""
    seen: list[tuple[Stage, int]] = []
    monkeypatch.setattr(engine, "run", lambda jobs, steps: seen.append((replace(jobs[0].stage, until=1.0), steps)))
    engine.warm_up()
    assert seen == []  # there is nothing to compile
    monkeypatch.setattr(engine, "_compiled", True)
    engine.warm_up()
    assert seen == [(FULL, 2), *((replace(stage, until=1.0), 1) for stage in COARSE_TO_FINE)]


def test_a_job_ends_at_its_target_distance_and_its_budget(middle: TorchEngine, middle_start: Start) -> None:
    near = middle.open(left(middle_start), Options(steps=50, target=9.0))
    middle.run([near], 5)
    assert (near.reason, near.state().step) == ("target", 1)
    # The distance of coarse images is another one: steps 0 and 1 of 4 are coarse.
    coarse = middle.open(middle_start, Options(steps=4, target=9.0))
    middle.run([coarse], 4)
    assert (coarse.reason, coarse.state().step) == ("target", 3)
    short = middle.open(middle_start, Options(steps=50, seconds=1e-3))
    middle.run([short], 5)
    assert (short.reason, short.state().step) == ("seconds", 1)
    assert short.state().seconds > 0


def test_a_job_stops_before_a_step_that_does_not_fit(middle: TorchEngine, middle_start: Start) -> None:
    job = middle.open(middle_start, Options(steps=50, seconds=1000.0))
    job.stop_before(5000.0)
    assert job.reason is None  # even the smallest budget gets a step
    middle.run([job], 1)
    job.stop_before(1900.0)
    assert job.reason is None
    job.stop_before(2100.0)
    assert (job.reason, job.state().step) == ("seconds", 1)


def test_adding_steps_does_not_turn_the_schedule_back(middle: TorchEngine, middle_start: Start) -> None:
    recipe = replace(chosen(Options(steps=10)), stages=(Stage(until=0.5, side=64, cost=0.25),))
    job = middle.begin(middle_start, recipe)
    # Four small steps take as long as one of full size.
    assert recipe.progress(0.8) == pytest.approx(0.5)
    middle.run([job], 9)
    assert (job.stage, job.done) == (FULL, recipe.progress(0.9))
    more = replace(recipe, steps=1000)
    again = middle.begin(middle_start, more, job.state())
    assert (again.stage, again.done) == (FULL, more.progress(0.009))


def test_a_diverging_job_ends_with_its_last_finite_state(middle: TorchEngine, middle_start: Start) -> None:
    lost = middle.open(replace(middle_start, f=middle_start.f * np.float32(1e30)), Options(steps=3))
    fine = middle.open(middle_start, Options(steps=1))
    middle.run([lost, fine], 1)
    assert (lost.reason, lost.state().step) == ("diverged", 0)
    assert np.isfinite(lost.state().f).all()
    assert (fine.reason, fine.state().step) == ("steps", 1)


def test_a_small_generator_of_another_family_is_refined() -> None:
    """No coarse step at a side that it does not have, no comparison at 256 px."""
    small = small_engine()
    assert small.resolution == 64
    start = small_start(small, 1)
    job = small.open(start, Options(steps=40))
    at_f_o = replace(start, f=start.f_o)
    before = small.terms(at_f_o, job.state())
    finish(small, [job])
    after = small.terms(at_f_o, job.state())
    assert after.mse < 0.5 * before.mse
    small.warm_up()
    with pytest.raises(ContractError, match=r"expected \[24, s, s\]"):
        small.open(replace(start, f=np.zeros((512, 16, 16), np.float32)), Options())


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_p_norm_can_be_a_hard_bound(preset: str) -> None:
    small = small_engine()
    start = small_start(small, 1)
    pnorm = load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors")
    job = small.open(left(start), Options(preset=preset, steps=2, clip=0.01))
    small.run([job], 2)
    state = job.state()
    v = pnorm(torch.from_numpy(state.w_m_plus))
    # Only axes that float32 can tell apart: the last ones magnify rounding.
    assert float(v[:, :256].abs().max()) <= 0.0101
    free = small.open(left(start), Options(preset=preset, steps=2))
    small.run([free], 2)
    assert float(pnorm(torch.from_numpy(free.state().w_m_plus))[:, :256].abs().max()) > 0.0101
