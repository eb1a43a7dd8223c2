"""One step of the optimisation of BDInvert, section 3.3::

w* = (f, w_M+) = argmin  ||G(w*) - I||^2 + l_p LPIPS(G(w*), I) + l_f ||f - f^o||^2 + l_n ||P-norm+(w_M+)||^2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from protocol.terms import Terms
from sidecar.optimise.faces import FaceTarget, joined_features
from sidecar.optimise.optimisation import Optimisation
from sidecar.optimise.terms import Seen, Target, Term, measured

Generate = Callable[[Tensor, Tensor, bool], Tensor]


def step(jobs: Sequence[Optimisation], generate: Generate, terms: Sequence[Term], *, half: bool) -> None:
    """Take one step with each job of a batch; a job whose loss or gradient is not finite takes none and ends.

    Args:
        jobs: jobs of one group and stage, each with its target.
        generate: G's fine half or its short form, from f [B, C, cut, cut], w_M+ [B, styles, 512] and precision to
            [B, 3, S, S].
        terms: terms of the loss; each job's recipe weighs them.
        half: whether convolutions run in bfloat16.
    """
    # w* and G(w*), and what they are held to
    f, w_m_plus = torch.cat([job.f for job in jobs]), torch.cat([job.w_m_plus for job in jobs])
    seen = Seen(
        image=generate(f, w_m_plus, half),
        target=_joined([job.seen_target for job in jobs]),
        f=f,
        f_o=torch.cat([job.f_o for job in jobs]),
        w_m_plus=w_m_plus,
        v=torch.cat([job.v for job in jobs]),
        half=half,
    )
    # L = sum of weight * term, each job's own; their sum gives each job its own gradient
    values = measured(terms, seen, jobs[0].weighed)
    weights = values.new_tensor([[job.recipe.weights.get(term.name, 0.0) for term in terms] for job in jobs])
    losses = (values * weights).sum(dim=1)
    losses.sum().backward()  # type: ignore[no-untyped-call]

    for job, loss, row in zip(jobs, losses.tolist(), values.tolist(), strict=True):
        if not (math.isfinite(loss) and job.optimiser.has_finite_gradient()):
            job.diverge()
            continue
        job.optimiser.step(job.recipe.rates(job.done, job.step, job.stage), held=job.stage.held)
        job.hold()
        job.count(Terms(total=loss, **{term.name: value for term, value in zip(terms, row, strict=True)}))


def _joined(targets: Sequence[Target]) -> Target:
    """Targets of one stage as a batch."""
    faces = [target.face for target in targets if target.face is not None]
    return Target(
        torch.cat([target.image for target in targets]),
        joined_features([target.features for target in targets]),
        targets[0].stage,
        FaceTarget.joined(faces) if faces else None,
    )
