"""``python -m export train encoder``: trains E on generator samples, on a CPU or a GPU.

Two losses. ``f``: mean squared error to the true feature map, normalised per channel; cheap, because
f costs milliseconds and nothing goes backward through the generator. ``image``: the paper's
``L_enc = ||G(E(I), w_M+) - I||^2 + lambda * perceptual`` (section 3.2), from the result of the first. Unlike the
paper's, half of its images are shifted, rotated and scaled: a moved f renders a moved face with damaged features,
so the regression alone teaches those.

A run is determined by its seed, data and options. It writes checkpoints and goes on from the last one
when it is called again; ``--minutes`` bounds its time over all calls, and the step size follows
whichever of steps and minutes is further along.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from export.cards import write_encoder
from export.generator import load_generator
from export.paths import encoder_file, samples_folder, training_folder
from export.samples import IDENTITY, Moves, draw_moves, features, move, shards
from networks.encoder import BODIES, Encoder
from networks.encoder_file import encoder_metadata, load_encoder, save_encoder
from networks.generator_file import Generator
from networks.mobilestylegan import CUTS

LOSSES = ("f", "image")


class TrainingError(ValueError):
    """Training cannot start: no samples, or a checkpoint of another run."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What determines a run, together with its data."""

    domain: str
    cut: int
    body: str
    loss: str
    steps: int
    batch: int
    learning_rate: float
    perceptual_weight: float
    seed: int
    start: str = ""  # sha256 of the encoder that the run started from
    before: str = ""  # how that one was trained

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises:
            TrainingError: a number is out of its range.
        """
        for name in ("steps", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name.replace('_', ' ')} must be above 0")


@dataclass(kw_only=True)
class Samples:
    """Images and the latents of their feature maps, held in memory."""

    image: Tensor  # uint8 [N, 3, 8 * cut, 8 * cut], area-averaged
    target: Tensor | None  # uint8 [N, 3, 256, 256] where the image loss needs it
    w_coarse: Tensor  # float32 [N, 512]
    w_fine: Tensor  # float32 [N, 512]
    theta: Tensor  # float32 [N, 2, 3]

    def __len__(self) -> int:
        return len(self.image)


def load_samples(folder: Path, split: str, *, size: int, keep_target: bool = False) -> Samples:
    """Read every shard of a split and shrink its images to ``size`` by area.

    Raises:
        TrainingError: there is none.
    """
    parts: dict[str, list[Tensor]] = {k: [] for k in ("image", "target", "w_coarse", "w_fine", "theta")}
    for shard in shards(folder, split):
        if keep_target:  # the image loss moves images itself; samples with a moved f are for the regression
            plain = (shard["theta"] == IDENTITY).all(dim=(1, 2))
            shard = {key: value[plain] for key, value in shard.items()}  # noqa: PLW2901
        image = shard["image"].permute(0, 3, 1, 2)
        small = F.avg_pool2d(image.float(), image.shape[-1] // size).round().to(torch.uint8)
        parts["image"].append(small)
        if keep_target:
            parts["target"].append(image.contiguous())
        for key in ("w_coarse", "w_fine", "theta"):
            parts[key].append(shard[key])
    if not parts["image"]:
        raise TrainingError(f"no {split} samples in {folder}; run: python -m export samples --split {split}")
    joined = {k: torch.cat(v) if v else None for k, v in parts.items()}
    return Samples(**joined)  # type: ignore[arg-type]


def unit(image: Tensor) -> Tensor:
    """uint8 [..] 0..255 to float32 -1..1."""
    return image.float() / 127.5 - 1


def batches(count: int, *, batch: int, seed: int, start: int) -> Iterator[Tensor]:
    """Endless batches of indices; step ``start`` gives the same batch in a resumed run."""
    per_epoch = count // batch
    step = start
    while True:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + step // per_epoch))
        for i in range(step % per_epoch, per_epoch):
            yield order[i * batch : (i + 1) * batch]
            step += 1


@torch.no_grad()
def heldout_error(encoder: Encoder, generator: Generator, samples: Samples, *, batch: int = 64) -> dict[str, float]:
    """Channel-normalised error of f on held-out samples, plain and moved.

    1.0 is the error of predicting f's mean. ``error``: the mean is one number per channel.
    ``residual``: the mean is a map per channel (the harder measure; on plain samples only, as the
    mean map of moved ones is nearly flat).
    """
    device = encoder.f_mean.device
    kinds: dict[bool, list[Tensor]] = {True: [], False: []}
    plain_all = (samples.theta == IDENTITY).all(dim=(1, 2))
    truths: list[Tensor] = []
    was_training = encoder.training
    encoder.eval()
    for i in range(0, len(samples), batch):
        s = slice(i, i + batch)
        truth = features(generator, samples.w_coarse[s].to(device), samples.theta[s].to(device), cut=encoder.cut)
        guess = encoder(unit(samples.image[s].to(device)))
        square = (encoder.normalise(truth) - encoder.normalise(guess)).square()
        for plain in (True, False):
            kinds[plain].append(square[plain_all[s].to(device) == plain].cpu())
        truths.append(encoder.normalise(truth)[plain_all[s].to(device)].cpu())
    encoder.train(was_training)
    plain_truth = torch.cat(truths)
    flat = (plain_truth - plain_truth.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    spread = (plain_truth - plain_truth.mean(dim=0)).square().mean()
    plain_error, moved_error = (torch.cat(kinds[k]).mean() for k in (True, False))
    return {
        "error": (plain_error / flat).item(),
        "residual": (plain_error / spread).item(),
        "moved": moved_error.item(),
    }


class Trainer:
    """One training run: model, optimiser, data, and where it stands."""

    def __init__(self, recipe: Recipe, *, folder: Path, samples: Path, minutes: float, device: torch.device) -> None:
        self.recipe, self.folder, self.minutes, self.device = recipe, folder, minutes, device
        self.generator = load_generator(recipe.domain)
        self.generator.synthesis.to(device)
        torch.manual_seed(recipe.seed)
        self.encoder = Encoder(body=recipe.body, cut=recipe.cut).to(device)
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size, image = self.encoder.input_size, recipe.loss == "image"
        self.train = load_samples(samples, "train", size=size, keep_target=image)
        self.heldout = load_samples(samples, "heldout", size=size)
        if len(self.train) < recipe.batch:
            raise TrainingError(f"there are {len(self.train)} samples, fewer than a batch of {recipe.batch}")
        self.optimiser = torch.optim.AdamW(self.encoder.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
        self.step, self.elapsed = 0, 0.0
        self.history: list[dict[str, float]] = []
        self._measure_f()
        if image:
            from export.image_loss import ImageLoss

            self.image_loss = ImageLoss(
                self.generator, perceptual_weight=recipe.perceptual_weight, device=device, compiled=True
            )

    @torch.no_grad()
    def _measure_f(self) -> None:
        """Channel statistics of f over the first samples, for the normalisation inside the encoder."""
        s = slice(0, 2048)
        f = features(
            self.generator,
            self.train.w_coarse[s].to(self.device),
            self.train.theta[s].to(self.device),
            cut=self.recipe.cut,
        )
        self.encoder.f_mean.copy_(f.mean(dim=(0, 2, 3)))
        self.encoder.f_std.copy_(f.std(dim=(0, 2, 3)))

    @property
    def checkpoint(self) -> Path:
        """The file that a killed run goes on from."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self._identity(),
            "encoder": self.encoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "history": self.history,
        }
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        (self.folder / "history.json").write_text(json.dumps(self.history, indent=1))

    def resume(self) -> None:
        """Go on from the checkpoint if there is one.

        Raises:
            TrainingError: it belongs to a run with other options.
        """
        if not self.checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        if state["recipe"] != self._identity():
            raise TrainingError(
                f"{self.checkpoint} is of a run with other options or samples; delete it or choose another --folder"
            )
        self.encoder.load_state_dict(state["encoder"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed, self.history = state["step"], state["elapsed"], state["history"]

    def _identity(self) -> dict[str, Any]:
        return asdict(self.recipe) | {"samples": len(self.train)}

    @property
    def progress(self) -> float:
        """0 to 1: the further of steps and minutes."""
        return max(self.step / self.recipe.steps, self.elapsed / 60 / self.minutes)

    def loss(self, index: Tensor) -> Tensor:
        """The loss of one batch of sample indices."""
        if self.recipe.loss == "f":
            return self._regression_loss(index)
        return self._image_loss(index)

    def _regression_loss(self, index: Tensor) -> Tensor:
        data, device = self.train, self.device
        w, theta = data.w_coarse[index].to(device), data.theta[index].to(device)
        with torch.no_grad():
            truth = self.encoder.normalise(features(self.generator, w, theta, cut=self.recipe.cut))
        return F.mse_loss(self._guess(unit(data.image[index].to(device))), truth)

    def _image_loss(self, index: Tensor) -> Tensor:
        """Half of the images are shifted, rotated and scaled as images: no f is known for those, and none is needed."""
        data, device = self.train, self.device
        assert data.target is not None
        rng = torch.Generator().manual_seed(self.recipe.seed + self.step)
        theta = draw_moves(len(index), moves=Moves(), rng=rng)
        theta[::2] = IDENTITY
        target = move(unit(data.target[index].to(device)), theta.to(device))
        image = F.avg_pool2d(target, target.shape[-1] // self.encoder.input_size)
        f = self.encoder.denormalise(self._guess(image))
        loss: Tensor = self.image_loss(f, data.w_fine[index].to(device), target)
        return loss

    def _guess(self, image: Tensor) -> Tensor:
        # image [B, 3, S, S] -> normalised f [B, 512, cut, cut]
        with torch.autocast(self.device.type, torch.bfloat16):
            guess: Tensor = self.encoder.body(image.contiguous(memory_format=torch.channels_last))
        return guess.float()

    def fit(self, *, every: int) -> None:
        """Train to the end, with a checkpoint and a held-out measurement every so many steps."""
        self.encoder.train(self.recipe.loss == "f")  # small batches would spoil the statistics of batch norm
        stream = batches(len(self.train), batch=self.recipe.batch, seed=self.recipe.seed, start=self.step)
        bar = tqdm(total=self.recipe.steps, initial=self.step, desc=f"encoder {self.recipe.loss}", disable=None)
        running, since = 0.0, 0
        while self.progress < 1:
            began = time.monotonic()
            warm = min(1.0, (self.step + 1) / 100)
            rate = self.recipe.learning_rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * self.progress)) / 2)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = self.loss(next(stream))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            running, since = running + loss.item(), since + 1
            self.elapsed += time.monotonic() - began
            bar.update(1)
            bar.set_postfix(loss=f"{running / since:.3f}", min=f"{self.elapsed / 60:.1f}")
            if self.step % every == 0 or self.progress >= 1:
                point = {"step": self.step, "minutes": self.elapsed / 60, "loss": running / since}
                point |= heldout_error(self.encoder, self.generator, self.heldout)
                self.history.append(point)
                bar.write("  ".join(f"{k} {v:.4g}" for k, v in point.items()))
                running, since = 0.0, 0
                self.save()
        bar.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export train``."""
    parser.add_argument("network", choices=["encoder"])
    parser.add_argument("--cut", type=int, choices=CUTS, default=16)
    parser.add_argument("--body", choices=BODIES, default="residual")
    parser.add_argument(
        "--loss", choices=LOSSES, default="f", help="f: regression (first); image: the paper's loss (then)"
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="time budget over all calls of this run")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--perceptual-weight", type=float, default=10.0, help="lambda of the image loss (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints (default: 250)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--samples", type=Path, default=None, help="default: build/samples/DOMAIN")
    parser.add_argument("--folder", type=Path, default=None, help="checkpoints; default: build/training/...")
    parser.add_argument("--start", type=Path, default=None, help="encoder to start from (safetensors)")
    parser.add_argument(
        "--out", type=Path, default=None, help="default: networks/weights/DOMAIN/encoderCUT.safetensors"
    )


def run(args: argparse.Namespace) -> None:
    """Train, then write the encoder as fp16 safetensors, and its card.

    Raises:
        TrainingError: the options, the samples or the checkpoint do not fit.
    """
    if args.minutes <= 0 or args.every <= 0:
        raise TrainingError("--minutes and --every must be above 0")
    start = before = ""
    if args.start:
        before = encoder_metadata(args.start)["training"] + "; then "
        start = hashlib.sha256(args.start.read_bytes()).hexdigest()
    recipe = Recipe(
        domain=args.domain, cut=args.cut, body=args.body, loss=args.loss, steps=args.steps, batch=args.batch,
        learning_rate=args.learning_rate, perceptual_weight=args.perceptual_weight, seed=args.seed,
        start=start, before=before,
    )  # fmt: skip
    folder = args.folder or training_folder(args.domain, f"encoder{args.cut}-{args.body}-{args.loss}")
    samples = args.samples or samples_folder(args.domain)
    trainer = Trainer(recipe, folder=folder, samples=samples, minutes=args.minutes, device=torch.device(args.device))
    if args.start:
        loaded = load_encoder(args.start, generator=trainer.generator.fingerprint)
        if (loaded.body_name, loaded.cut) != (args.body, args.cut):
            raise TrainingError(f"{args.start.name} is a {loaded.body_name} encoder for a cut at {loaded.cut}")
        trainer.encoder.load_state_dict(loaded.state_dict())
    trainer.resume()
    trainer.fit(every=args.every)
    target = args.out or encoder_file(args.domain, args.cut)
    stage = (
        f"loss `{args.loss}`, {len(trainer.train)} samples, {trainer.step} steps of {args.batch}, "
        f"AdamW {args.learning_rate:g} with cosine decay, "
        f"{trainer.elapsed / 60:.0f} minutes on {args.device}"
    )
    save_encoder(trainer.encoder, target, generator=trainer.generator.fingerprint, training=before + stage)
    write_encoder(
        target.with_suffix(".md"),
        metadata=encoder_metadata(target),
        parameters=sum(p.numel() for p in trainer.encoder.parameters()),
        metrics=trainer.history[-1],
    )
    print(f"{target}: {json.dumps(trainer.history[-1])}")
