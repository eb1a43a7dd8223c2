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
from sidecar.optimise.terms import Seen, Target, Term

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
    f, w_m_plus, v = (torch.cat([getattr(job, name) for job in jobs]) for name in ("f", "w_m_plus", "v"))
    image = generate(f, w_m_plus, half)
    seen = Seen(
        image=_cut_off(image),
        target=_joined([job.seen_target for job in jobs]),
        f=_cut_off(f),
        f_o=torch.cat([job.f_o for job in jobs]),
        w_m_plus=_cut_off(w_m_plus),
        v=_cut_off(v),
        half=half,
    )
    # L = sum of weight * term, each job's own; their sum gives each job its own gradient
    weights = image.new_tensor([[job.recipe.weights.get(term.name, 0.0) for term in terms] for job in jobs])
    values = torch.zeros_like(weights)
    for number, term in enumerate(terms):
        if term.lazy and term.name not in jobs[0].weighed:
            continue
        value = term(seen)
        values[:, number] = value.detach()
        # One term at a time: its activations are freed before the next one's are made.
        if weights[:, number].any():
            (value @ weights[:, number]).backward()  # type: ignore[no-untyped-call]
    losses = (values * weights).sum(dim=1)
    pairs = ((image, seen.image), (f, seen.f), (w_m_plus, seen.w_m_plus), (v, seen.v))
    known = {root: leaf.grad for root, leaf in pairs if leaf.grad is not None}
    torch.autograd.backward(list(known), list(known.values()))

    for job, loss, row in zip(jobs, losses.tolist(), values.tolist(), strict=True):
        if not (math.isfinite(loss) and job.optimiser.has_finite_gradient()):
            job.diverge()
            continue
        job.optimiser.step(job.recipe.rates(job.done, job.step, job.stage), held=job.stage.held)
        job.hold()
        job.count(Terms(total=loss, **{term.name: value for term, value in zip(terms, row, strict=True)}))


def _cut_off(value: Tensor) -> Tensor:
    """The same numbers as a leaf, which gathers the gradients of the terms."""
    return value.detach().requires_grad_()


def _joined(targets: Sequence[Target]) -> Target:
    """Targets of one stage as a batch."""
    faces = [target.face for target in targets if target.face is not None]
    return Target(
        torch.cat([target.image for target in targets]),
        joined_features([target.features for target in targets]),
        targets[0].stage,
        FaceTarget.joined(faces) if faces else None,
    )
