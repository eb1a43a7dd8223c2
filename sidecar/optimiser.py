"""The optimisers of one job, and their state as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sidecar.job import Floats, InvalidRequest
from sidecar.recipe import Recipe

_MOMENTS = ("exp_avg", "exp_avg_sq")
_VECTORS = ("d", "prev_flat_grad")
_PAIRS = ("old_dirs", "old_stps")
# A step of L-BFGS that makes the loss this much larger came from curvature that no longer holds.
_RISE = 1.5


class Optimiser:
    """Adam for the lead of a recipe, then L-BFGS without line search: one evaluation a step in either.

    Args:
        f: float32 [1, 512, s, s], a leaf.
        w: float32 [1, styles, 512], a leaf: the styles' coordinates.
        recipe: the lead, the rates, the history.
    """

    def __init__(self, f: Tensor, w: Tensor, recipe: Recipe) -> None:
        self._leaves = {"f": f, "w": w}
        self._recipe = recipe
        self._adam = torch.optim.Adam([{"params": [f]}, {"params": [w]}], foreach=False)
        self._lbfgs = self._fresh()
        self._before = float("inf")

    def step(self, loss: Tensor, *, number: int, done: float) -> None:
        """Take a step; the gradients are there.

        Args:
            loss: a scalar, where the gradients were taken.
            number: steps taken before.
            done: share of the steps or of the budget that is used up, 0 to 1.
        """
        if number < self._recipe.lead:
            factor = self._recipe.rate(done, number)
            for group, rate in zip(self._adam.param_groups, (self._recipe.rate_f, self._recipe.rate_w), strict=True):
                group["lr"] = rate * factor
            self._adam.step()
        else:
            value = float(loss)
            if value > _RISE * self._before:
                self._lbfgs = self._fresh()
            self._before = value
            self._lbfgs.step(lambda: value)  # type: ignore[no-untyped-call]
        for leaf in self._leaves.values():
            leaf.grad = None

    def state(self) -> dict[str, Floats]:
        """A copy, as float32 arrays by name."""
        found: dict[str, Floats] = {}
        for name, leaf in self._leaves.items():
            for moment, value in self._adam.state.get(leaf, {}).items():
                found[f"adam.{name}.{moment}"] = _array(value)
        for key, value in self._lbfgs.state_dict()["state"].get(0, {}).items():
            if key in _VECTORS:
                found[f"lbfgs.{key}"] = _array(value)
            elif key in (*_PAIRS, "ro") and value:
                found[f"lbfgs.{key}"] = _array(torch.stack([torch.as_tensor(v) for v in value]))
            elif key in ("n_iter", "t", "H_diag"):
                found[f"lbfgs.{key}"] = np.array(float(value), np.float32)
        if np.isfinite(self._before):
            found["before"] = np.array(self._before, np.float32)
        return found

    def load(self, state: Mapping[str, Floats]) -> None:
        """Go on from what :meth:`state` gave for leaves of the same shapes.

        Raises:
            InvalidRequest: it is something else.
        """
        state = dict(state)
        self._before = float(state.pop("before", np.array(np.inf)))
        for name, leaf in self._leaves.items():
            moments = {m: state.pop(f"adam.{name}.{m}", None) for m in ("step", *_MOMENTS)}
            if all(m is None for m in moments.values()):
                continue
            step = _checked(f"adam.{name}.step", moments["step"], ())
            first, second = (_checked(f"adam.{name}.{m}", moments[m], tuple(leaf.shape)) for m in _MOMENTS)
            if (second < 0).any() or step < 0:
                raise InvalidRequest(f"The checkpoint's adam.{name} has negative numbers.")
            self._adam.state[leaf] = {
                "step": torch.tensor(float(step)),
                "exp_avg": torch.from_numpy(first.copy()).to(leaf.device),
                "exp_avg_sq": torch.from_numpy(second.copy()).to(leaf.device),
            }
        curvature = {name.removeprefix("lbfgs."): state.pop(name) for name in list(state) if name.startswith("lbfgs.")}
        if state:
            raise InvalidRequest(f"The checkpoint's state has no place for {sorted(state)[0][:40]!r}.")
        if curvature:
            self._load_curvature(curvature)

    def _load_curvature(self, state: dict[str, Floats]) -> None:
        size = sum(leaf.numel() for leaf in self._leaves.values())
        device = next(iter(self._leaves.values())).device
        count = len(state["ro"]) if state.get("ro") is not None and state["ro"].ndim == 1 else 0
        if count > self._recipe.history:
            raise InvalidRequest(f"The checkpoint remembers {count} steps, more than {self._recipe.history}.")
        shapes: dict[str, tuple[int, ...]] = {"n_iter": (), "t": (), "H_diag": ()}
        shapes.update(dict.fromkeys(_VECTORS, (size,)))
        if count:
            shapes.update({**dict.fromkeys(_PAIRS, (count, size)), "ro": (count,)})
        if set(state) != set(shapes):
            raise InvalidRequest(f"The checkpoint's L-BFGS state must hold {', '.join(sorted(shapes))}.")
        found = {name: torch.from_numpy(_checked(name, state[name], shape).copy()) for name, shape in shapes.items()}
        kept: dict[str, object] = {name: found[name].to(device) for name in _VECTORS}
        kept |= {name: list(found[name].to(device)) if count else [] for name in (*_PAIRS, "ro")}
        kept |= {"t": float(found["t"]), "H_diag": found["H_diag"].to(device), "prev_loss": self._before}
        kept |= {"n_iter": int(found["n_iter"]), "func_evals": int(found["n_iter"])}
        whole = self._lbfgs.state_dict()
        self._lbfgs.load_state_dict({**whole, "state": {0: kept}})

    def _fresh(self) -> torch.optim.LBFGS:
        return torch.optim.LBFGS(
            list(self._leaves.values()),
            max_iter=1,
            max_eval=1,
            history_size=self._recipe.history,
            tolerance_grad=0,
            tolerance_change=0,
        )


def _array(value: Tensor) -> Floats:
    array: Floats = value.detach().cpu().float().numpy().copy()
    return array


def _checked(name: str, value: Floats | None, shape: tuple[int, ...]) -> Floats:
    if value is None or value.shape != shape or value.dtype != np.float32 or not np.isfinite(value).all():
        raise InvalidRequest(f"The checkpoint's {name} must be finite float32 {list(shape)}.")
    return value
