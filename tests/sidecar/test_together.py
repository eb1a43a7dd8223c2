"""A job's numbers do not depend on its neighbours, nor on an interruption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from protocol.messages import State
from protocol.options import Options
from sidecar.job import Start
from sidecar.optimise.engine import TorchEngine
from sidecar.optimise.recipe import chosen
from tests.sidecar.samples import at_f_o, finish, left, same, small_engine, small_start


@pytest.fixture
def small() -> TorchEngine:
    return small_engine()


# Jobs at f^o go through the coarse sides, jobs that have left it do not: those need no large pictures.
@pytest.mark.parametrize("moved", [False, True])
def test_in_turn_a_job_is_the_same_alone_in_company_and_resumed(
    middle: TorchEngine, small: TorchEngine, moved: bool
) -> None:
    options = Options(steps=5)
    engine = small if moved else middle
    start, other = ((left if moved else at_f_o)(small_start(engine, seed)) for seed in (1, 2))
    alone = engine.open(start, options)
    engine.run([alone], 3)
    half_way = alone.state()
    finish(engine, [alone])
    assert alone.reason == "steps"

    company = beside_a_neighbour(engine, start, other)
    assert same(company, alone.state()) == 0
    assert company.terms == alone.state().terms

    resumed = engine.open(start, options, half_way)
    assert resumed.state().step == 3
    finish(engine, [resumed])
    assert same(resumed.state(), alone.state()) == 0
    assert resumed.state().terms == alone.state().terms


def beside_a_neighbour(engine: TorchEngine, start: Start, other: Start) -> State:
    """Five steps beside a job that leaves after two of them and comes back for the last."""
    job, neighbour = engine.open(start, Options(steps=5)), engine.open(other, Options(steps=9))
    engine.run([job, neighbour], 2)
    engine.run([job], 2)
    engine.run([neighbour, job], 1)
    assert (job.reason, neighbour.state().step) == ("steps", 3)
    return job.state()


# A batch runs other kernels than a single image, and their sums round differently: by up to 1.4e-5 in a gradient whose
# median is 2e-4. Adam's first steps have the size of the rate whatever the gradient's, so where a gradient is below its
# own rounding the step may go the other way (0.03 % of f, by 0.009). Codes after a few steps of float32 are therefore
# no measure of a fault in batching. Gradients are, and codes in float64, where rounding stays far below Adam's epsilon.
def test_in_a_batch_each_job_has_its_own_gradients(small: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(chosen(Options(steps=5)), half=False)
    starts = [left(small_start(small, seed)) for seed in (1, 2)]
    alone = [small.begin(one, recipe) for one in starts]
    for job in alone:
        small.run([job], 1)
    monkeypatch.setattr(small, "_largest", None)  # as on a GPU
    together = [small.begin(one, recipe) for one in starts]
    small.run(together, 1)
    for one, other in zip(alone, together, strict=True):
        for name in ("f", "w"):
            # After one step Adam's first moment is the gradient, scaled.
            expected, found = (job.state().optimiser[f"{name}.exp_avg"] for job in (one, other))
            assert np.linalg.norm(found - expected) < 0.005 * np.linalg.norm(expected)
        assert other.terms is not None and one.terms is not None
        for name, value in vars(one.terms).items():
            assert getattr(other.terms, name) == pytest.approx(value, rel=1e-5)


def test_in_float64_a_batch_changes_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    small = small_engine(torch.float64)
    start, other = small_start(small, 1), small_start(small, 2)
    alone = small.open(start, Options(steps=5))
    finish(small, [alone])
    monkeypatch.setattr(small, "_largest", None)  # as on a GPU
    # A state is stored in float32.
    assert same(beside_a_neighbour(small, start, other), alone.state()) < 1e-6
