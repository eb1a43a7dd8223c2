"""The loop of a training run: batches, budget, step size, checkpoints, history and its plot.

A run is determined by its seed, data and options. It writes checkpoints and continues from the last one
when it is called again; a budget of minutes bounds its time over all calls, and the step size follows
whichever of steps and minutes is further along.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from export.training.tasks import LOSSES, NETWORKS, Task, TrainingError

WARMUP = 50
# Factors of the learning rate: the head starts from least squares, and 512 inputs of unit variance add up.
RATES = {"encoder": 1.0, "detail": 0.05}


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The settings of a run; with its data, they determine the result."""

    domain: str
    network: str
    cut: int
    body: str
    loss: str
    steps: int
    batch: int
    learning_rate: float
    perceptual_weight: float
    identity_weight: float
    seed: int
    start: tuple[str, ...] = ()  # sha256 of the weights that the run started from

    def __post_init__(self) -> None:
        """Check the plan.

        Raises:
            TrainingError: a number is out of range, or a name is unknown.
        """
        for name in ("steps", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise TrainingError(
                    f"invalid {name.replace('_', ' ')} {getattr(self, name)}: expected a number above 0"
                )
        for name, known in (("network", NETWORKS), ("loss", LOSSES)):
            if getattr(self, name) not in known:
                raise TrainingError(f"unknown {name} `{getattr(self, name)}`: expected {', '.join(known)}")


def batches(count: int, *, batch: int, seed: int, start: int) -> Iterator[Tensor]:
    """Endless batches of indices; step ``start`` gives the same batch in a resumed run."""
    per_epoch = count // batch
    step = start
    while True:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + step // per_epoch))
        for i in range(step % per_epoch, per_epoch):
            yield order[i * batch : (i + 1) * batch]
            step += 1


class TrainingRun:
    """A training run: task, optimiser and progress."""

    def __init__(self, recipe: TrainingPlan, task: Task, *, folder: Path, minutes: float = math.inf) -> None:
        if len(task.train) < recipe.batch:
            raise TrainingError(f"{len(task.train)} samples do not fill a batch of {recipe.batch}: render more")
        self.recipe, self.task, self.folder, self.minutes = recipe, task, folder, minutes
        task.start()
        self.parameters = [p for network in task.trained.values() for p in network.parameters()]
        groups = [{"params": list(task.trained[name].parameters()), "factor": RATES[name]} for name in task.trained]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=0.01)
        self.step, self.elapsed = 0, 0.0
        self.history: list[dict[str, float]] = []

    @property
    def checkpoint(self) -> Path:
        """The file from which a killed run continues."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint, atomically, and the history with its plot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self._identity(),
            "networks": {name: network.state_dict() for name, network in self.task.trained.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "history": self.history,
        }
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        (self.folder / "history.json").write_text(json.dumps(self.history, indent=1))
        plot(self.history, self.folder / "history.png")

    def resume(self) -> None:
        """Continue from the checkpoint, if it exists.

        Raises:
            TrainingError: it is from a run with other options.
        """
        if not self.checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True, map_location=self.task.device)
        if state["recipe"] != self._identity():
            raise TrainingError(
                f"`{self.checkpoint}` is from a run with other options or samples: delete it, or pass another --folder"
            )
        for name, network in self.task.trained.items():
            network.load_state_dict(state["networks"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed, self.history = state["step"], state["elapsed"], state["history"]

    def _identity(self) -> dict[str, Any]:
        return asdict(self.recipe) | {"samples": len(self.task.train)}

    @property
    def progress(self) -> float:
        """Progress from 0 to 1, by steps or minutes, whichever is further."""
        return max(self.step / self.recipe.steps, self.elapsed / 60 / self.minutes)

    def fit(self, *, every: int) -> None:
        """Train to the end; every so many steps, write a checkpoint and measure on held-out samples."""
        recipe, task = self.recipe, self.task
        stream = batches(len(task.train), batch=recipe.batch, seed=recipe.seed, start=self.step)
        bar = tqdm(total=recipe.steps, initial=self.step, desc=f"{recipe.network} {recipe.loss}", disable=None)
        running, since = 0.0, 0
        while self.progress < 1:
            began = time.monotonic()
            warm = min(1.0, (self.step + 1) / WARMUP)
            rate = recipe.learning_rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * self.progress)) / 2)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            loss = task.loss(next(stream), self.step)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimiser.step()
            self.step += 1
            running, since = running + loss.item(), since + 1
            self.elapsed += time.monotonic() - began
            bar.update(1)
            bar.set_postfix(loss=f"{running / since:.3f}", min=f"{self.elapsed / 60:.1f}")
            if self.step % every == 0 or self.progress >= 1:
                point = {"step": self.step, "minutes": self.elapsed / 60, "loss": running / since}
                self.history.append(point | task.measure())
                bar.write("  ".join(f"{k} {v:.4g}" for k, v in self.history[-1].items()))
                running, since = 0.0, 0
                self.save()
        bar.close()


def plot(history: list[dict[str, float]], path: Path) -> None:
    """Loss and held-out errors against minutes, as a PNG file; none without matplotlib (extra ``bench``)."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [
        ("loss",),
        *((name, "moved_" + name) for name in ("f", "styles", "psnr", "vgg", "identity") if name in history[0]),
    ]
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.2), layout="constrained")
    for axis, group in zip([axes] if len(names) == 1 else axes, names, strict=True):
        for name in group:
            axis.plot([point["minutes"] for point in history], [point[name] for point in history], ".-", label=name)
        axis.set(xlabel="minutes")
        axis.grid(visible=True, alpha=0.25)
        axis.legend()
    partial = path.with_suffix(".part")
    figure.savefig(partial, dpi=100, format="png")
    plt.close(figure)
    partial.replace(path)
