"""``python -m export train``: trains the encoder, the detail head, or both, on generator samples; or looks, or a head.

Stages are runs of their own, each from the weights of the one before: ``--loss latents``, then ``image`` (see
:mod:`export.training.tasks`). The weights that ship are where a run starts if ``--start`` says so, and what it
replaces at its end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import torch

from assets.paths import detail_file, encoder_file, pnorm_file, samples_folder, training_folder
from assets.perceptual import stlpips
from export.generator import load_generator
from export.training.card import write_network
from export.training.looks import command as looks
from export.training.picture import command as picture
from export.training.regression import Regression
from export.training.tasks import LOSSES, NETWORKS, Task, TrainingError
from export.training.training import TrainingPlan, TrainingRun
from networks.detail import Detail
from networks.encoder import BODIES, Constant, Encoder
from networks.learned_file import learned_metadata, load_detail, load_encoder, save_learned
from networks.pnorm import load_pnorm
from protocol.cuts import CUTS, W_PLUS

LOOKS, PICTURE, RETOUCH = "looks", "picture", "retouch"
# Defaults of the other networks; the looks have their own.
DEFAULTS = {"steps": 20_000, "minutes": math.inf, "batch": 32, "learning_rate": 1e-3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export train``."""
    parser.add_argument("network", choices=(*NETWORKS, LOOKS, PICTURE, RETOUCH), help="the network to train")
    parser.add_argument(
        "--cut",
        type=int,
        choices=(W_PLUS, *CUTS),
        default=16,
        help="16 (default), 8, or 4 for W+, which has a head only",
    )
    parser.add_argument("--body", choices=BODIES, default="residual", help="network of the encoder (default: residual)")
    parser.add_argument("--loss", choices=LOSSES, default="latents", help="latents first, then image")
    parser.add_argument("--start", action="store_true", help="start from the weights in --weights")
    parser.add_argument(
        "--steps", type=int, help="steps over all calls of this run (default: 20000; the last three: no limit)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="minutes over all calls of this run "
        "(default: no limit; looks: 150, on a GPU 25; picture: 90; retouch: 60)",
    )
    parser.add_argument(
        "--batch", type=int, help="batch size (default: 32; looks: 6, on a GPU 48; picture: 4; retouch: 6)"
    )
    parser.add_argument(
        "--learning-rate", type=float, help="learning rate (default: 1e-3; looks: 3e-4, on a GPU 4e-4; picture: 2e-4)"
    )
    parser.add_argument("--perceptual-weight", type=float, default=10.0, help="lambda of the image loss (default: 10)")
    parser.add_argument(
        "--identity-weight", type=float, default=0.0, help="weight of the identity loss (default: 0, off)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints (default: 250)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="device to train on")
    parser.add_argument("--samples", type=Path, help="folder of the samples (default: build/samples/DOMAIN)")
    parser.add_argument("--folder", type=Path, help="folder for checkpoints (default: under build/training)")
    parser.add_argument("--weights", type=Path, help="folder for the weights (default: networks/weights/DOMAIN)")
    looks.add_arguments(parser.add_argument_group("looks"))
    picture.add_arguments(parser.add_argument_group("picture"))


def run(args: argparse.Namespace) -> None:
    """Train the named network; for the looks, see :mod:`export.training.looks`, for the picture head `picture`."""
    others = {LOOKS: looks.run, PICTURE: picture.run, RETOUCH: picture.run_retouch}
    if args.network in others:
        others[args.network](args)
        return
    for name, default in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    train(args)


def train(args: argparse.Namespace) -> None:
    """Train on samples, then write the networks as float16 safetensors, each with its card.

    Raises:
        TrainingError: the options, the samples or the checkpoint do not fit.
    """
    if args.minutes <= 0 or args.every <= 0:
        raise TrainingError("invalid `--minutes` or `--every`: expected a number above 0")
    if args.loss == "latents" and (args.network == "both" or (args.network == "detail" and args.start)):
        raise TrainingError("`--loss latents` trains one network at a time, and a head without `--start`")
    if args.cut == W_PLUS and args.network != "detail":
        raise TrainingError("`--cut 4` is W+, which has no encoder: train the network `detail`")
    generator, cut = load_generator(args.domain), args.cut
    weights = args.weights or encoder_file(args.domain, cut).parent
    files = {"encoder": weights / encoder_file("", cut).name, "detail": weights / detail_file("", cut).name}
    trained = [name for name in files if args.network in (name, "both")]
    # For images, a head is trained with a fixed encoder.
    read = [name for name in files if (name in trained and args.start) or (name == "encoder" and needs_encoder(args))]
    recipe = TrainingPlan(
        domain=args.domain, network=args.network, cut=cut, body=args.body, loss=args.loss, steps=args.steps,
        batch=args.batch, learning_rate=args.learning_rate, perceptual_weight=args.perceptual_weight,
        identity_weight=args.identity_weight, seed=args.seed,
        start=tuple(hashlib.sha256(files[name].read_bytes()).hexdigest() for name in read),
    )  # fmt: skip
    before = {name: learned_metadata(files[name])["training"] + "; then " for name in read}
    torch.manual_seed(recipe.seed)
    synthesis = generator.synthesis
    encoder: Encoder | Constant
    if cut == W_PLUS:
        encoder = Constant.of(synthesis)
    else:
        encoder = Encoder(body=args.body, cut=cut, channels=synthesis.f_channels(cut))
    detail = Detail(cut=cut, count=synthesis.fine_styles(cut))
    detail.backbone.load_state_dict(stlpips("alex").state_dict())
    if "encoder" in read:
        encoder = load_encoder(files["encoder"], generator=generator.fingerprint)
        if (encoder.body_name, encoder.cut) != (args.body, cut):
            raise TrainingError(
                f"`{files['encoder'].name}` has the body {encoder.body_name}: pass `--body {encoder.body_name}`"
            )
    if "detail" in read:
        detail = load_detail(files["detail"], generator=generator.fingerprint)
    task = Task(
        network=args.network, loss=args.loss, generator=generator, encoder=encoder,
        detail=detail if "detail" in trained else None, samples=args.samples or samples_folder(args.domain),
        pnorm=load_pnorm(pnorm_file(args.domain)),
        perceptual_weight=args.perceptual_weight, identity_weight=args.identity_weight, seed=args.seed,
        device=torch.device(args.device),
    )  # fmt: skip
    if "encoder" not in read and cut != W_PLUS:
        task.measure_statistics()
    body = "" if args.network == "detail" else f"-{args.body}"
    folder = args.folder or training_folder(args.domain, f"{args.network}{cut}{body}-{args.loss}")
    if (args.network, args.loss) == ("detail", "latents"):
        metrics, stage = regress(task, recipe, folder, every=args.every)
    else:
        metrics, stage = descend(task, recipe, folder, minutes=args.minutes, every=args.every)
    stage += f" on {args.device}"
    for name in trained:
        network = task.trained[name]
        assert isinstance(network, Encoder | Detail)
        history = (before[name] if name in read else "") + stage
        save_learned(network, files[name], generator=generator.fingerprint, training=history)
        count = sum(p.numel() for p in network.parameters())
        write_network(
            files[name].with_suffix(".md"),
            domain=args.domain,
            metadata=learned_metadata(files[name]),
            parameters=count,
            metrics=metrics,
        )
        print(f"{files[name]}: {json.dumps(metrics)}")


def regress(task: Task, recipe: TrainingPlan, folder: Path, *, every: int) -> tuple[dict[str, float], str]:
    """Fit the head by least squares; returns its held-out errors, and a description for the card."""
    identity = asdict(recipe) | {"samples": len(task.train)}
    task.start()
    regression = Regression(task, folder=folder, batch=recipe.batch, identity=identity)
    regression.resume()
    metrics = regression.fit(every=every)
    return metrics, f"least squares, {len(task.train)} samples, {regression.elapsed / 60:.0f} minutes"


def descend(
    task: Task, recipe: TrainingPlan, folder: Path, *, minutes: float, every: int
) -> tuple[dict[str, float], str]:
    """Train by gradient descent; returns as :func:`regress`."""
    trainer = TrainingRun(recipe, task, folder=folder, minutes=minutes)
    trainer.resume()
    trainer.fit(every=every)
    identity = f" with identity, {recipe.identity_weight:g}" if recipe.identity_weight else ""
    stage = (
        f"loss `{recipe.loss}` of {recipe.network}{identity}, {len(task.train)} samples, "
        f"{trainer.step} steps of {recipe.batch}, AdamW {recipe.learning_rate:g} with cosine decay, "
        f"{trainer.elapsed / 60:.0f} minutes"
    )
    return trainer.history[-1], stage


def needs_encoder(args: argparse.Namespace) -> bool:
    """Whether only a head is trained, on images, which need f from the encoder."""
    return bool(args.network == "detail" and args.loss != "latents" and args.cut != W_PLUS)
