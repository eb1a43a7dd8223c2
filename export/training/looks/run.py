"""The run of a training: steps, the step size, averaged weights, checkpoints, the log.

A run is bounded by minutes and steps over all of its calls. It writes checkpoints, and continues from the last one, on
any machine, when it is called again. Each step's batch depends on the seed and the step's number alone.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.training.looks.critic import critic_loss
from export.training.looks.draws import Batches, Moves, draw_move, draw_styles
from export.training.looks.step import STYLES, Shown, Step
from export.training.looks.weights import write_parts
from networks.precision import half
from networks.similarity import compose, move

DECAY = 0.998  # of the averaged weights, once they have seen as much
PAINTED = 4  # pictures at a time on a CPU, whose cache holds no more
BALANCE = 20  # steps after which the critics' weights are set anew


@dataclass(frozen=True, kw_only=True)
class Run:
    """Options.

    Attributes:
        minutes: minutes of all calls together, after which the step size has fallen to a hundredth.
        steps: the same.
        batch: photos a step.
        photos: share of real faces.
        rate: AdamW's learning rate.
        warm_up: steps in which it rises.
        whole: whether gradients go through the whole fine half, or through the short head.
        crops_from: progress, 0 to 1, from which crops of full size count, and the critic of them. Earlier, where codes
            are still far off, they only blur what the late styles paint.
        frozen: beginnings of names of parts that stay as they are.
        norms_frozen: whether batch norms keep their statistics, as small batches need.
        code_steps: steps by the codes of samples alone, before everything else: of the coarse look, and of the others
            if no part is frozen.
        code_batch: samples of such a step.
        seed: seed of everything that is drawn.
        save_minutes: between checkpoints.
        log_steps: between lines of the log.
    """

    minutes: float = 150.0
    steps: int = 10**9
    batch: int = 6
    photos: float = 0.5
    rate: float = 3e-4
    warm_up: int = 20
    whole: bool = False
    crops_from: float = 0.8
    frozen: tuple[str, ...] = ("second.at64.",)
    norms_frozen: bool = True
    code_steps: int = 300
    code_batch: int = 24
    seed: int = 0
    save_minutes: float = 5.0
    log_steps: int = 10


class Trainer:
    """The state of a run."""

    def __init__(
        self, step: Step, batches: Batches, run: Run, *, folder: Path, say: Callable[[str], None] = print
    ) -> None:
        self.step, self.batches, self.run, self.folder, self.say = step, batches, run, folder, say
        self.networks: dict[str, nn.Module] = {"looks": step.looks, "head": step.head}
        self.averaged = {name: copy.deepcopy(n).eval().requires_grad_(False) for name, n in self.networks.items()}
        pairs = [
            (kept, n.state_dict()[part])
            for name, n in self.networks.items()
            for part, kept in self.averaged[name].state_dict().items()
        ]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._floats = [kept for kept, _ in floats], [now for _, now in floats]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.device = batches.device
        for name, parameter in step.looks.named_parameters():
            parameter.requires_grad_(not name.startswith(run.frozen))
        self.parameters = [p for n in self.networks.values() for p in n.parameters() if p.requires_grad]
        options = {"betas": (0.9, 0.99), "weight_decay": 0.01, "fused": self.device.type == "cuda"}
        self.optimiser = torch.optim.AdamW(self.parameters, lr=run.rate, **options)  # type: ignore[arg-type]
        coarse = list(step.looks.coarse_look.parameters())
        others = [p for p in step.looks.parameters() if not run.frozen and all(p is not c for c in coarse)]
        groups = [{"params": coarse, "top": 1e-3}, {"params": others, "top": 5e-4}]
        self.code_optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
        found = {"critic": step.critic, "code_critic": step.code_critic}
        self.critics: dict[str, nn.Module] = {name: critic for name, critic in found.items() if critic is not None}
        learn = [p for critic in self.critics.values() for p in critic.parameters()]
        self.critic_optimiser = torch.optim.AdamW(learn or [torch.zeros(1)], lr=3e-4, betas=(0.0, 0.99))
        self.codes_done = self.done = self.seen = 0
        self.elapsed = 0.0
        self.history: list[dict[str, Any]] = []
        self._sums: dict[str, tuple[Tensor, int]] = {}

    # --- state

    @property
    def checkpoint(self) -> Path:
        """The file that a killed run continues from."""
        return self.folder / "checkpoint.pt"

    def _state(self) -> dict[str, Any]:
        return {
            "networks": {name: n.state_dict() for name, n in self.networks.items()},
            "averaged": {name: n.state_dict() for name, n in self.averaged.items()},
            "critics": {name: critic.state_dict() for name, critic in self.critics.items()},
            "optimisers": [o.state_dict() for o in (self.optimiser, self.code_optimiser, self.critic_optimiser)],
            "balance": self.step.balance.weights,
            "counts": [self.codes_done, self.done, self.seen, self.elapsed],
            "found": self.batches.found,
            "history": self.history,
        }

    def save(self) -> None:
        """Write the checkpoint, the averaged weights and the log, each whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".part")
        torch.save(self._state(), partial)
        partial.replace(self.checkpoint)
        for name, network in self.averaged.items():
            write_parts(network, self.folder, name)
        (self.folder / "history.json").write_text(json.dumps({"run": asdict(self.run), "history": self.history}))

    def resume(self) -> bool:
        """Continue from the checkpoint; False if there is none."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
            self.averaged[name].load_state_dict(state["averaged"][name])
        for name, critic in self.critics.items():
            critic.load_state_dict(state["critics"][name])
        optimisers = (self.optimiser, self.code_optimiser, self.critic_optimiser)
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.codes_done, self.done, self.seen, self.elapsed = state["counts"]
        self.batches.found, self.history = state.get("found"), state["history"]
        self.step.balance.weights = state["balance"]
        return True

    @property
    def progress(self) -> float:
        """Progress, 0 to 1: by steps or by minutes, whichever is further."""
        return max(self.done / self.run.steps, self.elapsed / 60 / self.run.minutes)

    # --- steps

    def fit(self) -> None:
        """Train to the end."""
        saved = time.monotonic()
        while self.codes_done < self.run.code_steps or self.progress < 1:
            began = time.monotonic()
            if self.codes_done < self.run.code_steps:
                self._codes()
            else:
                self._main()
            self.elapsed += time.monotonic() - began
            if time.monotonic() - saved > 60 * self.run.save_minutes:
                self.save()
                saved = time.monotonic()
        self.save()

    def _rng(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.run.seed * 10**9 + number)

    def _codes(self) -> None:
        """The codes of samples, by regression: samples that the short head paints, many and cheap."""
        run, step, looks, synthesis = self.run, self.step, self.step.looks, self.step.synthesis
        rng = self._rng(5 * 10**8 + self.codes_done)
        progress = self.codes_done / run.code_steps
        for group in self.code_optimiser.param_groups:
            group["lr"] = group["top"] * min(1, (self.codes_done + 1) / run.warm_up) * (0.02 + 0.98 * (1 - progress))
        (looks.coarse_look if run.frozen else looks).train()
        with torch.no_grad():
            w = draw_styles(self.batches.generator, run.code_batch, rng)
            f = synthesis.coarse(w[:, : looks.coarse], cut=looks.cut)
            some = len(f) if self.device.type == "cuda" else PAINTED
            codes = zip(torch.split(f, some), torch.split(w[:, looks.coarse :], some), strict=True)
            image = torch.cat([step.paint(*code) for code in codes])
            theta = torch.stack([draw_move((0.7, 1.3), rng, Moves(free=0.5)) for _ in w]).to(self.device)
            # Landmarks of photos are not quite where the generator's are.
            jitter = torch.stack([draw_move((1.0, 1.0), rng, Moves(15.0, 0.1, 0.0)) for _ in w]).to(self.device)
            photo = move(image.clamp(-1, 1), theta)
        with half(self.device):
            w_coarse = looks.look_at_face(photo, compose(jitter, theta)).float()
        made = looks.normalise_f(synthesis.coarse(w_coarse, cut=looks.cut))
        parts = {
            "f_coarse": (made - looks.normalise_f(f)).square().mean(),
            "w_coarse": STYLES * step.styles_apart(w_coarse, w[:, : looks.coarse]),
        }
        if not run.frozen:
            parts |= step.codes_apart(photo, move(f, theta), w[:, looks.coarse :])
        self.code_optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        for group in self.code_optimiser.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.code_optimiser.step()
        self.codes_done += 1
        self._add(parts)
        if self.codes_done % self.run.log_steps == 0 or self.codes_done == 1:
            self._tell("codes", self.codes_done)
        if self.codes_done == run.code_steps:
            self.averaged["looks"].load_state_dict(looks.state_dict())

    def _main(self) -> None:
        run, step = self.run, self.step
        rng = self._rng(self.done)
        warm = min(1.0, (self.done + 1) / run.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = run.rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1, self.progress))) / 2)
        self._modes()
        photos = round(run.batch * run.photos)
        batch = self.batches.draw(run.batch - photos, photos, rng)
        step.crops = self.progress >= run.crops_from
        loss, parts, shown = step(batch, rng, whole=run.whole, balance=self.done % BALANCE == 0)
        self.batches.found = step.found
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        used = [p for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(used, 1.0)
        for p in used:  # not a look at the norm, for which a GPU would have to wait
            torch.nan_to_num_(p.grad, nan=0.0, posinf=0.0, neginf=0.0)  # type: ignore[arg-type]
        self.optimiser.step()
        parts["skipped"] = 1 - norm.detach().isfinite().float()
        parts |= self._teach_critics(shown)
        parts |= {f"pull_{name}": torch.tensor(value) for name, value in step.balance.weights.items()}
        self.done += 1
        self.seen += run.batch
        self._average()
        self._add(parts | {"norm": norm})
        if self.done % run.log_steps == 0 or self.done == 1:
            self._tell("step", self.done)

    def _teach_critics(self, shown: Shown) -> dict[str, Tensor]:
        """Train the critics; returns their losses."""
        losses = {}
        if shown.crops is not None and self.step.critic is not None:
            true, ours, counts = shown.crops
            losses["critic"] = critic_loss(self.step.critic(true), self.step.critic(ours.detach()), counts)
        if shown.codes is not None and self.step.code_critic is not None:
            own, made = shown.codes
            scores = self.step.code_critic(*own), self.step.code_critic(*(part.detach() for part in made))
            losses["code_critic"] = critic_loss(*scores)
        if losses:
            self.critic_optimiser.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            self.critic_optimiser.step()
        return losses

    def _modes(self) -> None:
        for network in self.networks.values():
            network.train()
            if self.run.norms_frozen:
                for part in network.modules():
                    if isinstance(part, nn.BatchNorm2d):
                        part.eval()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(DECAY, self.done / (self.done + 5))
        torch._foreach_lerp_(*self._floats, 1 - decay)
        for kept, now in self._others:
            kept.copy_(now)

    # --- the log

    def _add(self, parts: dict[str, Tensor]) -> None:
        for name, value in parts.items():
            total, count = self._sums.get(name, (torch.zeros((), device=value.device), 0))
            self._sums[name] = total + value.detach().float().mean(), count + 1  # read by the log alone

    def _tell(self, kind: str, number: int) -> None:
        means = {name: float(total) / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        line = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        self.say(f"[{self.elapsed:8.1f}] {kind} {number} seen {self.seen} {line}")
        self.history.append({"kind": kind, "number": number, "seen": self.seen, "elapsed": self.elapsed, **means})
