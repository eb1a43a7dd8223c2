"""One refinement in progress: the variables, their optimiser, and where it stands."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor

from networks.mapping import STYLE_DIM
from networks.mobilestylegan import CUTS, F_CHANNELS, NUM_STYLES, coarse_styles
from networks.pnorm import PNorm
from sidecar.job import Floats, InvalidRequest, Reason, Start, State, Terms
from sidecar.losses import Target
from sidecar.recipe import Recipe

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Refinement:
    """A job: ``f`` and the styles as leaves of its own, with an Adam of its own, so that no job sees its neighbours.

    Args:
        start: checked by :func:`checked`.
        recipe: how to optimise.
        target: what the loss keeps of ``start.target``.
        pnorm: of the generator.
        w_avg: float32 [512], the mean of W.
        resume: where an earlier attempt got, checked by :func:`checked_state`.
    """

    def __init__(
        self, start: Start, recipe: Recipe, *, target: Target, pnorm: PNorm, w_avg: Tensor, resume: State | None = None
    ) -> None:
        self.recipe = recipe
        self.target = target
        self.reason: Reason | None = None
        self._pnorm = pnorm
        device = w_avg.device
        self.f_o = _tensor(start.f_o, device)
        self._step, self._seconds, self._terms = 0, 0.0, None if resume is None else resume.terms
        if resume is None:
            f = _tensor(start.f, device)
            w = _tensor(start.w_m_plus, device)
            if recipe.from_mean:
                w = w_avg.expand_as(w)
            self._f, self._w = f.requires_grad_(), self._coordinates(w).requires_grad_()
        else:
            self._step, self._seconds = resume.step, resume.seconds
            self._f = _tensor(resume.f, device).requires_grad_()
            self._w = _tensor(resume.optimiser["w"], device).requires_grad_()
        self._adam = torch.optim.Adam([{"params": [self._f]}, {"params": [self._w]}], lr=recipe.rate_f, foreach=False)
        if resume is not None and resume.step:
            for name, leaf in (("f", self._f), ("w", self._w)):
                moments = {m: _tensor(resume.optimiser[f"{name}.{m}"], device) for m in _MOMENTS}
                self._adam.state[leaf] = {"step": torch.tensor(float(resume.step)), **moments}
        self._finite = self._snapshot()
        self._stop_where_due()

    @property
    def group(self) -> Hashable:
        """Jobs of one cut and precision share a batch."""
        return self.f_o.shape[-1], self.recipe.half

    @property
    def steps(self) -> int:
        """Steps that it has at most."""
        return self.recipe.steps

    @property
    def f(self) -> Tensor:
        """float32 [1, 512, s, s], a leaf."""
        return self._f

    @property
    def w_m_plus(self) -> Tensor:
        """float32 [1, styles, 512], differentiable in the leaf."""
        return self._pnorm.inverse(self._w) if self.recipe.whitened else self._w

    @property
    def whitened(self) -> Tensor:
        """float32 [1, styles, 512]: P-norm+ of the styles."""
        return self._w if self.recipe.whitened else self._pnorm(self._w)

    def state(self) -> State:
        """A copy of where it is; where the loss has become NaN or infinite, of where it was before that slice."""
        return self._finite if self.reason == "diverged" else self._snapshot()

    def mark(self) -> None:
        """Keep the present state to fall back to."""
        self._finite = self._snapshot()

    def apply(self, loss: Tensor, terms: Terms) -> None:
        """Take one step down a gradient that is already there.

        Args:
            loss: the scalar that was differentiated; a step is refused where it or a gradient is not finite.
            terms: its parts.
        """
        leaves = (self._f, self._w)
        if not all(
            bool(torch.isfinite(t).all()) for t in (loss, *(leaf.grad for leaf in leaves if leaf.grad is not None))
        ):
            self.reason = "diverged"
            return
        factor = self.recipe.rate(self._done(), self._step)
        for group, rate in zip(self._adam.param_groups, (self.recipe.rate_f, self.recipe.rate_w), strict=True):
            group["lr"] = rate * factor
        self._adam.step()
        self._adam.zero_grad()
        self._step += 1
        self._terms = terms
        self._stop_where_due()

    def spend(self, seconds: float) -> None:
        """Add to the time that the job has been optimised for."""
        self._seconds += seconds
        self._stop_where_due()

    def _done(self) -> float:
        done = self._step / self.recipe.steps
        return max(done, self._seconds / self.recipe.seconds) if self.recipe.seconds else done

    def _stop_where_due(self) -> None:
        if self.reason is not None:
            return
        recipe, terms = self.recipe, self._terms
        if terms is not None and recipe.target is not None and terms.perceptual <= recipe.target:
            self.reason = "target"
        elif self._step >= recipe.steps:
            self.reason = "steps"
        elif recipe.seconds is not None and self._seconds >= recipe.seconds:
            self.reason = "seconds"

    def _coordinates(self, w: Tensor) -> Tensor:
        """Styles in the coordinates in which they are optimised."""
        if not self.recipe.whitened:
            return w.clone()
        v: Tensor = self._pnorm(w)
        return v if self.recipe.clip is None else v.clamp(-self.recipe.clip, self.recipe.clip)

    @torch.no_grad()
    def _snapshot(self) -> State:
        optimiser = {"w": _array(self._w)}
        for name, leaf in (("f", self._f), ("w", self._w)):
            moments = self._adam.state.get(leaf, {})
            for moment in _MOMENTS:
                optimiser[f"{name}.{moment}"] = _array(moments.get(moment, torch.zeros_like(leaf)))
        return State(self._step, self._seconds, _array(self._f), _array(self.w_m_plus), optimiser, self._terms)


def _tensor(value: Floats, device: torch.device) -> Tensor:
    """[...] to a copy [1, ...] on a device."""
    return torch.from_numpy(value.copy()).to(device)[None]


def _array(value: Tensor) -> Floats:
    """[1, ...] on any device to a NumPy copy [...]."""
    array: Floats = value.detach()[0].cpu().numpy().copy()
    return array


def checked(start: Start, *, resolution: int) -> None:
    """Refuse a start that does not fit the generator.

    Raises:
        InvalidRequest: a wrong shape or dtype, numbers that are not finite.
    """
    cut = start.f.shape[-1] if start.f.ndim == 3 else 0
    if cut not in CUTS or start.f.shape != (F_CHANNELS, cut, cut):
        raise InvalidRequest(f"f is {list(start.f.shape)}, and must be [512, s, s] with s 8 or 16.")
    styles = (NUM_STYLES - coarse_styles(cut), STYLE_DIM)
    _require("f_o", start.f_o, start.f.shape)
    _require("f", start.f, start.f.shape)
    _require("w_m_plus", start.w_m_plus, styles)
    if start.target.shape != (resolution, resolution, 3) or start.target.dtype != np.uint8:
        raise InvalidRequest(
            f"The photo is {list(start.target.shape)}, and must be uint8 [{resolution}, {resolution}, 3]."
        )


def checked_state(state: State, start: Start, recipe: Recipe) -> None:
    """Refuse a checkpoint that does not belong to a start and its recipe.

    Raises:
        InvalidRequest: a wrong shape, numbers that are not finite, a tensor too few or too many, an impossible step.
    """
    shapes = {"w": start.w_m_plus.shape}
    shapes |= {f"f.{m}": start.f.shape for m in _MOMENTS} | {f"w.{m}": start.w_m_plus.shape for m in _MOMENTS}
    if set(state.optimiser) != set(shapes):
        raise InvalidRequest(f"The checkpoint's state must hold {', '.join(sorted(shapes))}.")
    for name, shape in shapes.items():
        _require(f"the checkpoint's {name}", state.optimiser[name], shape)
        if name.endswith("exp_avg_sq") and (state.optimiser[name] < 0).any():
            raise InvalidRequest(f"The checkpoint's {name} has negative numbers.")
    _require("the checkpoint's f", state.f, start.f.shape)
    _require("the checkpoint's w_m_plus", state.w_m_plus, start.w_m_plus.shape)
    if not 0 <= state.step <= recipe.steps:
        raise InvalidRequest(f"The checkpoint is at step {state.step}, and the job has {recipe.steps}.")
    if not (np.isfinite(state.seconds) and state.seconds >= 0):
        raise InvalidRequest("The checkpoint's seconds are not a number from 0 on.")


def _require(name: str, value: Floats, shape: tuple[int, ...]) -> None:
    if value.shape != shape or value.dtype != np.float32:
        raise InvalidRequest(f"{name} is {value.dtype} {list(value.shape)}, and must be float32 {list(shape)}.")
    if not np.isfinite(value).all():
        raise InvalidRequest(f"{name} holds numbers that are not finite.")
