"""One step: its gradients are those of the whole loss, and its terms need memory one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from protocol.options import Options
from sidecar.optimise.step import step
from sidecar.optimise.terms import Closeness, PNormPlus, Seen, Target, mean_square
from tests.sidecar.samples import left, small_engine, small_start


class Cubes:
    """A term of everything that is seen; keeps its last value."""

    lazy = False

    def __init__(self, name: str, before: Cubes | None = None) -> None:
        self.name, self.before = name, before
        self.value = torch.zeros(())

    def __call__(self, seen: Seen) -> Tensor:
        if self.before is not None:
            with pytest.raises(RuntimeError, match="second time"):
                self.before.value.sum().backward()  # type: ignore[no-untyped-call]
        parts = [mean_square(x) * mean_square(x + 1) for x in (seen.image, seen.f, seen.w_m_plus, seen.v)]
        self.value = torch.stack(parts).sum(dim=0)
        return self.value


def test_terms_one_at_a_time_have_the_gradient_of_their_sum() -> None:
    engine = small_engine()
    starts = [left(small_start(engine, seed)) for seed in (1, 2)]
    jobs, others = ([engine.open(start, Options()) for start in starts] for _ in range(2))
    for job in (*jobs, *others):
        job.target = (job.stage, Target(torch.zeros(1, 3, 8, 8), (), job.stage))

    f, w_m_plus, v = (torch.cat([getattr(job, name) for job in others]) for name in ("f", "w_m_plus", "v"))
    image, f_o = engine._image(f, w_m_plus, False), torch.cat([job.f_o for job in others])
    seen = Seen(image, others[0].seen_target, f, f_o, w_m_plus, v, False)
    weights = others[0].recipe.weights
    both = (weights["mse"] + weights["perceptual"]) * Cubes("mse")(seen)
    rest = weights["f"] * Closeness()(seen) + weights["p_norm"] * PNormPlus()(seen)
    losses = both + rest
    losses.sum().backward()

    first = Cubes("mse")
    step(jobs, engine._image, [first, Cubes("perceptual", before=first), Closeness(), PNormPlus()], half=False)
    for job, other, loss in zip(jobs, others, losses.tolist(), strict=True):
        state = job.state()
        for name, leaf in (("f", other.f), ("w", other._w)):
            assert leaf.grad is not None
            # Adam's first moment after one step is a tenth of the gradient.
            found = 10 * state.optimiser[f"{name}.exp_avg"]
            np.testing.assert_allclose(found, leaf.grad[0].numpy(), rtol=1e-3, atol=1e-5 * float(leaf.grad.abs().max()))
        assert state.terms is not None
        assert state.terms.total == pytest.approx(loss, rel=1e-5)
