"""The detail head by least squares: ridge regression from pooled features to styles, in one pass over the samples.

The head is linear in its features, so it has a best solution, found without step sizes, epochs or luck. Every other
image is moved, so that the styles do not depend on place. The sums are kept every so many samples, and
a killed run continues from there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from export.training.tasks import Task, TrainingError
from networks.detail import Detail

RIDGE = 0.01  # share of the standardised features' variance that counts as noise


class Regression:
    """Sums over the samples, and their solution."""

    def __init__(self, task: Task, *, folder: Path, batch: int, identity: dict[str, Any]) -> None:
        assert task.detail is not None
        self.task, self.detail, self.folder, self.batch, self.identity = task, task.detail, folder, batch, identity
        features, outputs = len(self.detail.mean), self.detail.count * 512
        self.done, self.elapsed = 0, 0.0
        self.sums = {
            "x": torch.zeros(features, dtype=torch.float64),
            "y": torch.zeros(outputs, dtype=torch.float64),
            "xx": torch.zeros(features, features, dtype=torch.float64),
            "xy": torch.zeros(features, outputs, dtype=torch.float64),
        }

    @property
    def checkpoint(self) -> Path:
        """The file from which a killed run continues."""
        return self.folder / "sums.pt"

    def resume(self) -> None:
        """Continue from the saved sums, if they exist.

        Raises:
            TrainingError: they are from a run with other options.
        """
        if not self.checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        if state["identity"] != self.identity:
            raise TrainingError(f"`{self.checkpoint}` is from a run with other options or samples: delete it")
        self.sums, self.done, self.elapsed = state["sums"], state["done"], state["elapsed"]

    def fit(self, *, every: int) -> dict[str, float]:
        """Pass over the samples, solve, and set the head; returns the errors on held-out samples."""
        count = len(self.task.train)
        with tqdm(total=count, initial=self.done, desc="detail latents", disable=None) as bar:
            for n, index in enumerate(torch.split(torch.arange(self.done, count), self.batch), start=1):
                began = time.monotonic()
                self._add(index)
                self.done += len(index)
                self.elapsed += time.monotonic() - began
                bar.update(len(index))
                if n % every == 0 or self.done == count:
                    self._save()
        solve(self.detail, self.sums, count)
        return self.task.measure()

    def _add(self, index: Tensor) -> None:
        features, w = self.task.features(index)
        x, y = features.double().cpu(), w.flatten(1).double().cpu()
        self.sums["x"] += x.sum(dim=0)
        self.sums["y"] += y.sum(dim=0)
        self.sums["xx"] += x.T @ x
        self.sums["xy"] += x.T @ y

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".part")
        torch.save({"identity": self.identity, "sums": self.sums, "done": self.done, "elapsed": self.elapsed}, partial)
        partial.replace(self.checkpoint)


@torch.no_grad()
def solve(detail: Detail, sums: dict[str, Tensor], count: int) -> None:
    """Set a head to the ridge solution in the principal components of its features.

    Args:
        detail: is changed; its hidden layer gives components of unit variance.
        sums: float64 ``x`` [F], ``y`` [O], ``xx`` [F, F], ``xy`` [F, O], over ``count`` samples.
        count: number of samples.
    """
    mean, middle = sums["x"] / count, sums["y"] / count
    covariance = sums["xx"] / count - mean.outer(mean)
    scale = covariance.diagonal().clamp_min(1e-12).sqrt()
    covariance = covariance / scale.outer(scale)
    cross = (sums["xy"] / count - mean.outer(middle)) / scale[:, None]
    variances, axes = torch.linalg.eigh(covariance)
    rank = len(detail.hidden.weight)
    variances, axes = variances.flip(0)[:rank].clamp_min(1e-9), axes.flip(1)[:, :rank]
    root = variances.sqrt()
    detail.mean.copy_(mean)
    detail.scale.copy_(scale)
    detail.hidden.weight.copy_((axes / root).T)
    detail.styles.weight.copy_((axes.T @ cross * (root / (variances + RIDGE))[:, None]).T)
    detail.styles.bias.copy_(middle)
