"""The optimiser of one job, and its state as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from protocol.limits import ContractError
from protocol.messages import Floats

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimiser:
    """Adam (Kingma and Ba, arXiv 1412.6980) on the leaves of one job.

    Args:
        f: float32 [1, 512, s, s], a leaf.
        w: float32 [1, styles, 512], a leaf: the styles' coordinates.
        betas: decay of the two moments.
    """

    def __init__(self, f: Tensor, w: Tensor, betas: tuple[float, float]) -> None:
        self._leaves = {"f": f, "w": w}
        self._adam = torch.optim.Adam([{"params": [f]}, {"params": [w]}], betas=betas, foreach=False)

    def has_finite_gradient(self) -> bool:
        """Whether every number of the gradients is finite."""
        return all(bool(torch.isfinite(leaf.grad).all()) for leaf in self._leaves.values() if leaf.grad is not None)

    def step(self, rates: tuple[float, float], *, held: int = 0) -> None:
        """Take a step down the gradients, at the learning rates of ``f`` and of the styles, and clear them.

        Args:
            rates: both.
            held: number of last styles that stay as they are.
        """
        if held and self._leaves["w"].grad is not None:
            self._leaves["w"].grad[:, -held:] = 0
        for group, rate in zip(self._adam.param_groups, rates, strict=True):
            group["lr"] = rate
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
        """Continue from what :meth:`state` gave after ``step`` steps, for leaves of the same shapes.

        Raises:
            ContractError: it is something else.
        """
        names = {f"{name}.{moment}" for name in self._leaves for moment in _MOMENTS}
        if set(state) != names:
            raise ContractError(f"invalid checkpoint: expected a state of w, {', '.join(sorted(names))}")
        for name, leaf in self._leaves.items():
            moments = {moment: _checked(f"{name}.{moment}", state, tuple(leaf.shape[1:])) for moment in _MOMENTS}
            if (moments["exp_avg_sq"] < 0).any():
                raise ContractError(f"invalid {name}.exp_avg_sq of the checkpoint: it has negative numbers")
            if step:
                kept = {moment: torch.from_numpy(value.copy())[None].to(leaf) for moment, value in moments.items()}
                self._adam.state[leaf] = {"step": torch.tensor(float(step)), **kept}


def _checked(name: str, state: Mapping[str, Floats], shape: tuple[int, ...]) -> Floats:
    value = state[name]
    if value.shape != shape or value.dtype != np.float32 or not np.isfinite(value).all():
        raise ContractError(f"invalid {name} of the checkpoint: expected finite float32 {list(shape)}")
    return value
