"""The optimiser of one job, and its state as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sidecar.job import Floats, InvalidRequest
from sidecar.optimise.recipe import Recipe

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimiser:
    """Adam (Kingma and Ba, arXiv 1412.6980) on the leaves of one job, at its recipe's rates.

    Args:
        f: float32 [1, 512, s, s], a leaf.
        w: float32 [1, styles, 512], a leaf: the styles' coordinates.
        recipe: the rates and the betas.
    """

    def __init__(self, f: Tensor, w: Tensor, recipe: Recipe) -> None:
        self._leaves = {"f": f, "w": w}
        self._recipe = recipe
        self._adam = torch.optim.Adam([{"params": [f]}, {"params": [w]}], betas=recipe.betas, foreach=False)

    def step(self, *, number: int, done: float) -> None:
        """Take a step down the gradients that are there, and clear them.

        Args:
            number: steps taken before.
            done: share of the steps or of the budget that is used up, 0 to 1.
        """
        factor = self._recipe.rate(done, number)
        for group, rate in zip(self._adam.param_groups, (self._recipe.rate_f, self._recipe.rate_w), strict=True):
            group["lr"] = rate * factor
        self._adam.step()
        self._adam.zero_grad()

    def state(self) -> dict[str, Floats]:
        """A copy of the moments, float32 of the leaves' shapes [...] by name; zeros before the first step."""
        found: dict[str, Floats] = {}
        for name, leaf in self._leaves.items():
            moments = self._adam.state.get(leaf, {})
            for moment in _MOMENTS:
                value = moments.get(moment, torch.zeros_like(leaf))
                found[f"{name}.{moment}"] = value.detach()[0].cpu().numpy().astype(np.float32)
        return found

    def load(self, state: Mapping[str, Floats], *, step: int) -> None:
        """Go on from what :meth:`state` gave after ``step`` steps, for leaves of the same shapes.

        Raises:
            InvalidRequest: it is something else.
        """
        names = {f"{name}.{moment}" for name in self._leaves for moment in _MOMENTS}
        if set(state) != names:
            raise InvalidRequest(f"The checkpoint's state must hold w, {', '.join(sorted(names))}.")
        for name, leaf in self._leaves.items():
            moments = {moment: _checked(f"{name}.{moment}", state, tuple(leaf.shape[1:])) for moment in _MOMENTS}
            if (moments["exp_avg_sq"] < 0).any():
                raise InvalidRequest(f"The checkpoint's {name}.exp_avg_sq has negative numbers.")
            if step:
                kept = {moment: torch.from_numpy(value.copy())[None].to(leaf) for moment, value in moments.items()}
                self._adam.state[leaf] = {"step": torch.tensor(float(step)), **kept}


def _checked(name: str, state: Mapping[str, Floats], shape: tuple[int, ...]) -> Floats:
    value = state[name]
    if value.shape != shape or value.dtype != np.float32 or not np.isfinite(value).all():
        raise InvalidRequest(f"The checkpoint's {name} must be finite float32 {list(shape)}.")
    return value
