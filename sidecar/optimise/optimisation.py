"""One job: its variables, their optimiser and its progress."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor

from networks.mapping import STYLE_DIM
from networks.pnorm import PNorm
from networks.synthesis import Synthesis
from protocol.cuts import CUTS, W_PLUS
from protocol.limits import ContractError
from protocol.messages import Floats, State
from protocol.terms import Terms
from sidecar.job import End, Start
from sidecar.optimise.adam import Optimiser
from sidecar.optimise.recipe import FULL, Recipe, Stage
from sidecar.optimise.terms import Target

# Tensors of a checkpoint's state besides the optimiser's moments.
_OWN = ("w", "coarse")


class Optimisation:
    """A job. It has its own leaves and optimiser, so that its neighbours do not affect it.

    Args:
        start: checked by :func:`checked`.
        recipe: how to optimise.
        pnorm: P-norm+ of the generator.
        w_avg: float32 [512], the mean of W.
        weighed: names of the lazy terms that the recipe weighs.
        theta: float32 [1, 2, 3], how the aligned face lies in the photo, where the recipe weighs terms of it.
        resume: where an earlier attempt got, checked by :func:`checked_state`.
    """

    def __init__(
        self,
        start: Start,
        recipe: Recipe,
        *,
        pnorm: PNorm,
        w_avg: Tensor,
        weighed: frozenset[str] = frozenset(),
        theta: Tensor | None = None,
        resume: State | None = None,
    ) -> None:
        self.recipe, self.weighed = recipe, weighed
        self.image, self.theta = start.target, theta
        # What the terms compare with; made at the first step, because a job may wait for a long time.
        self.target: tuple[Stage, Target] | None = None
        # Whether coarse steps may follow: a start that differs from f^o already lies on the photo. Whether they were.
        coarse = float(np.array_equal(start.f, start.f_o)) if resume is None else float(resume.optimiser["coarse"][0])
        self._coarse, self._was_coarse = coarse == 1, coarse > 0
        self.reason: End | None = None
        self.step, self.seconds, self.terms = 0, 0.0, None if resume is None else resume.terms
        self._pnorm = pnorm
        self.f_o = _tensor(start.f_o, w_avg)
        if resume is None:
            w = _tensor(start.w_m_plus, w_avg)
            self.f, coordinates = (
                _tensor(start.f, w_avg),
                self._coordinates(w_avg.expand_as(w) if recipe.from_mean else w),
            )
        else:
            self.step, self.seconds = resume.step, resume.seconds
            self.f = _tensor(resume.f, w_avg)
            coordinates = _tensor(resume.optimiser["w"], w_avg)
        self.f.requires_grad_()
        self._w = coordinates.requires_grad_()
        self.optimiser = Optimiser(self.f, self._w, recipe.betas)
        if resume is not None:
            moments = {name: value for name, value in resume.optimiser.items() if name not in _OWN}
            self.optimiser.load(moments, step=resume.step)
        self._finite = self._snapshot()
        self._stop_where_due()

    @property
    def group(self) -> Hashable:
        """Jobs of one cut, precision and set of lazy terms share a batch."""
        return self.f_o.shape[-1], self.recipe.half, self.weighed

    @property
    def steps(self) -> int:
        """Most steps it will take."""
        return self.recipe.steps

    @property
    def stage(self) -> Stage:
        """The stage of the next step."""
        return self.recipe.stage(self.done) if self._coarse else FULL

    @property
    def w_m_plus(self) -> Tensor:
        """float32 [1, styles, 512], differentiable in the leaf."""
        return self._pnorm.inverse(self._w) if self.recipe.whitened else self._w

    @property
    def seen_target(self) -> Target:
        """What the terms compare with in the current stage."""
        assert self.target is not None and self.target[0] == self.stage
        return self.target[1]

    @property
    def v(self) -> Tensor:
        """float32 [1, styles, 512]: P-norm+ of the styles."""
        return self._w if self.recipe.whitened else self._pnorm(self._w)

    def state(self) -> State:
        """A copy of the state; if the loss became NaN or infinite, the state before that slice."""
        return self._finite if self.reason == "diverged" else self._snapshot()

    def mark(self) -> None:
        """Remember the current state as a fallback."""
        self._finite = self._snapshot()

    def diverge(self) -> None:
        """End, falling back to the last marked state."""
        self.reason = "diverged"
        self.step, self.terms = self._finite.step, self._finite.terms

    def count(self, terms: Terms) -> None:
        """Count a step; ``terms`` were measured before it."""
        full = self.stage == FULL
        # Permanent: adding steps later changes the shares, but must not bring coarse steps back.
        self._coarse = not full
        self.step += 1
        self.terms = terms
        self._stop_where_due(close=full)

    def spend(self, seconds: float) -> None:
        """Add to the time spent on the job."""
        self.seconds += seconds
        self._stop_where_due()

    def stop_before(self, seconds: float) -> None:
        """End if less of the budget is left than half of the next step, which is expected to take so many seconds."""
        recipe = self.recipe
        if self.reason is None and recipe.seconds is not None and self.seconds + seconds / 2 > recipe.seconds:
            # Even the smallest budget gets a step.
            self.reason = "seconds" if self.step else None

    @property
    def done(self) -> float:
        """Share of the steps, by the time that they take, or of the budget that is used up, 0 to 1."""
        share = self.step / self.recipe.steps
        return max(
            self.recipe.progress(share) if self._was_coarse else share, self.seconds / (self.recipe.seconds or math.inf)
        )

    def _stop_where_due(self, *, close: bool = False) -> None:
        """Stop if due; ``close`` says whether the terms can be compared with the target distance."""
        if self.reason is not None:
            return
        recipe, terms = self.recipe, self.terms
        if close and terms is not None and recipe.target is not None and terms.perceptual <= recipe.target:
            self.reason = "target"
        elif self.step >= recipe.steps:
            self.reason = "steps"
        elif recipe.seconds is not None and self.seconds >= recipe.seconds:
            self.reason = "seconds"

    def _coordinates(self, w: Tensor) -> Tensor:
        """The styles in the coordinates of the optimisation."""
        if not self.recipe.whitened:
            return w.clone()
        v: Tensor = self._pnorm(w)
        return v if self.recipe.clip is None else v.clamp(-self.recipe.clip, self.recipe.clip)

    @torch.no_grad()
    def hold(self) -> None:
        """Clip P-norm+ of the styles if the recipe bounds it."""
        if (bound := self.recipe.hold) is not None:
            v = self.v.clamp(-bound, bound)
            self._w.copy_(v if self.recipe.whitened else self._pnorm.inverse(v))

    @torch.no_grad()
    def _snapshot(self) -> State:
        coarse = 1 if self._coarse else 2 if self._was_coarse else 0
        own = {"w": _array(self._w), "coarse": np.array([coarse], np.float32)}
        optimiser = {**own, **self.optimiser.state()}
        return State(self.step, self.seconds, _array(self.f), _array(self.w_m_plus), optimiser, self.terms)


def _tensor(value: Floats, like: Tensor) -> Tensor:
    """[...] to a copy [1, ...] of the dtype and on the device of ``like``."""
    return torch.from_numpy(value.copy()).to(like)[None]


def _array(value: Tensor) -> Floats:
    """[1, ...] on any device to a NumPy copy [...]."""
    array: Floats = value.detach()[0].cpu().numpy().astype(np.float32)
    return array


def checked(start: Start, synthesis: Synthesis) -> None:
    """Check that a start fits the generator.

    Raises:
        ContractError: a wrong shape or dtype, numbers that are not finite.
    """
    cut, resolution = start.f.shape[-1] if start.f.ndim == 3 else 0, synthesis.size
    if cut not in (W_PLUS, *CUTS) or start.f.shape != (synthesis.f_channels(cut), cut, cut):
        channels = synthesis.f_channels(CUTS[0])
        raise ContractError(f"invalid f {list(start.f.shape)}: expected [{channels}, s, s] with s 8 or 16, or 4 in W+")
    styles = (synthesis.fine_styles(cut), STYLE_DIM)
    _require("f_o", start.f_o, start.f.shape)
    _require("f", start.f, start.f.shape)
    _require("w_m_plus", start.w_m_plus, styles)
    if start.target.shape != (resolution, resolution, 3) or start.target.dtype != np.uint8:
        raise ContractError(f"invalid photo {list(start.target.shape)}: expected uint8 [{resolution}, {resolution}, 3]")


def checked_state(state: State, start: Start, recipe: Recipe) -> None:
    """Check that a checkpoint belongs to a start and its recipe; the optimiser checks its own tensors.

    Raises:
        ContractError: a wrong shape, numbers that are not finite, an impossible step.
    """
    _require("f of the checkpoint", state.f, start.f.shape)
    _require("w_m_plus of the checkpoint", state.w_m_plus, start.w_m_plus.shape)
    for name, shape in (("w", start.w_m_plus.shape), ("coarse", (1,))):
        if name not in state.optimiser:
            raise ContractError(f"invalid checkpoint: its state lacks {name}")
        _require(f"{name} of the checkpoint", state.optimiser[name], shape)
    if not 0 <= state.step <= recipe.steps:
        raise ContractError(f"invalid checkpoint: it is at step {state.step} of {recipe.steps}")
    if not (np.isfinite(state.seconds) and state.seconds >= 0):
        raise ContractError("invalid seconds of the checkpoint: expected a number from 0")


def _require(name: str, value: Floats, shape: tuple[int, ...]) -> None:
    if value.shape != shape or value.dtype != np.float32:
        raise ContractError(f"invalid {name}: {value.dtype} {list(value.shape)}, expected float32 {list(shape)}")
    if not np.isfinite(value).all():
        raise ContractError(f"invalid {name}: it has numbers that are not finite")
