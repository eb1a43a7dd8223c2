"""A run of training: steps, averaged weights, checkpoints, the log. Subclasses say what a step learns from."""

from __future__ import annotations

import copy
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.training.looks.weights import write_parts
from export.training.picture.spectrum import Spectra
from networks.perceptual import STLPIPS
from networks.picture_head import PictureHead
from networks.precision import in_half

CLOSE = 96  # side of the crops that ST-LPIPS (VGG) compares
DECAY = 0.998  # of the averaged weights, once they have seen as much
NAME = "picture"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options.

    Attributes:
        minutes: minutes of all calls together, over whose second half the step size falls to a hundredth.
        steps: the same.
        batch: crops a step.
        side: side of the crops.
        rate: Adam's learning rate.
        warm_up: steps in which it rises.
        absolute: weight of the absolute error.
        alex: weight of ST-LPIPS (Alex).
        vgg: weight of ST-LPIPS (VGG), of the first two crops of a step.
        texture: weight of the difference of local spectra.
        seed: seed of everything that is drawn.
        save_minutes: between checkpoints.
        log_steps: between lines of the log.
    """

    minutes: float = 90.0
    steps: int = 10**9
    batch: int = 4
    side: int = 128
    rate: float = 2e-4
    warm_up: int = 50
    absolute: float = 6.0
    alex: float = 0.4
    vgg: float = 0.25
    texture: float = 60.0
    seed: int = 0
    save_minutes: float = 5.0
    log_steps: int = 50


class Trainer(ABC):
    """The state of a run.

    Args:
        head: the picture head, of which what has gradients learns, and all is written.
        distances: ST-LPIPS by Alex and by VGG.
        plan: options, whose weights are named as the losses are.
        device: where it runs.
        folder: for checkpoints, weights and the log.
        say: receives lines of the log.
    """

    def __init__(
        self,
        head: PictureHead,
        distances: tuple[STLPIPS, STLPIPS],
        plan: Plan,
        *,
        device: torch.device,
        folder: Path,
        say: Callable[[str], None] = print,
    ) -> None:
        self.head, self.plan = head, plan
        self.learning = [parameter for parameter in head.parameters() if parameter.requires_grad]
        self.folder, self.say, self.device = folder, say, device
        self.alex, self.vgg = (in_half(distance.requires_grad_(requires_grad=False), device) for distance in distances)
        self.spectra = Spectra().to(device)
        self.averaged = copy.deepcopy(head).eval().requires_grad_(requires_grad=False)
        self.optimiser = torch.optim.Adam(self.learning, lr=plan.rate, betas=(0.9, 0.99))
        self.done, self.elapsed = 0, 0.0
        self.history: list[dict[str, float]] = []
        self._sums: dict[str, list[float]] = {}

    @abstractmethod
    def paint(self, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Crops as the head paints them, the true ones, float32 [B, 3, side, side], and how much their errors weigh."""

    @property
    def checkpoint(self) -> Path:
        """The file that a killed run continues from."""
        return self.folder / "checkpoint.pt"

    @property
    def _parts(self) -> dict[str, Any]:
        return {"head": self.head, "averaged": self.averaged, "optimiser": self.optimiser}

    def save(self) -> None:
        """Write the checkpoint, the averaged weights and the log, each whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self._parts.items()}
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state | {"counts": [self.done, self.elapsed], "history": self.history}, partial)
        partial.replace(self.checkpoint)
        write_parts(self.averaged, self.folder, NAME)
        (self.folder / "history.json").write_text(json.dumps({"plan": asdict(self.plan), "history": self.history}))

    def resume(self) -> bool:
        """Continue from the checkpoint; False if there is none."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        (self.done, self.elapsed), self.history = state["counts"], state["history"]
        return True

    @property
    def progress(self) -> float:
        """Progress, 0 to 1: by steps or by minutes, whichever is further."""
        return max(self.done / self.plan.steps, self.elapsed / 60 / self.plan.minutes)

    def fit(self) -> None:
        """Train to the end."""
        saved = time.monotonic()
        while self.progress < 1:
            began = time.monotonic()
            self._step()
            self.elapsed += time.monotonic() - began
            if time.monotonic() - saved > 60 * self.plan.save_minutes:
                self.save()
                saved = time.monotonic()
        self.save()

    def _step(self) -> None:
        plan = self.plan
        rng = torch.Generator().manual_seed(plan.seed * 10**9 + self.done)
        last = max(0.0, 2 * min(1.0, self.progress) - 1)  # progress within the second half
        rate = plan.rate * min(1.0, (self.done + 1) / plan.warm_up) * (0.01 + 0.99 * (1 + math.cos(math.pi * last)) / 2)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        image, target, weight = self.paint(rng)
        down, across = (int(torch.randint(plan.side - CLOSE + 1, (), generator=rng)) for _ in range(2))
        close = (slice(2), slice(None), slice(down, down + CLOSE), slice(across, across + CLOSE))
        parts = {
            "absolute": ((image - target).abs() * weight).mean(),
            "alex": self.alex(image, target).mean(),
            "vgg": self.vgg(image[close], target[close]).mean(),
            "texture": self.spectra(image, target).mean(),
        }
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack([getattr(plan, name) * value for name, value in parts.items()]).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimiser.step()
        self.done += 1
        with torch.no_grad():
            decay = min(DECAY, self.done / (self.done + 10))
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.head.parameters()), 1 - decay)
        self._log(parts)

    def _log(self, parts: dict[str, Tensor]) -> None:
        for name, value in parts.items():
            self._sums.setdefault(name, []).append(float(value.detach()))
        if self.done % self.plan.log_steps and self.done > 1:
            return
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        self._sums = {}
        line = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        self.say(f"[{self.elapsed:8.1f}] step {self.done} {line}")
        self.history.append({"step": self.done, "elapsed": self.elapsed, **means})
