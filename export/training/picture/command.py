"""``python -m export train picture`` and ``train retouch``: the picture head, with the looks fixed.

All but its retouch learns from real faces and samples, at 256 px; then the retouch learns from samples at full size.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace

import torch

from assets.paths import faithful_head_file, picture_head_file, training_folder
from assets.perceptual import stlpips
from export.generator import load_generator
from export.serve.looks import LooksGraph, PictureGraph, load_looks_graph
from export.training.looks.command import Arguments, read_sets
from export.training.looks.draws import Batches
from export.training.looks.faces import FacesError
from export.training.picture.crops import Crops
from export.training.picture.examples import Shards
from export.training.picture.retouch import PLAN as RETOUCH
from export.training.picture.retouch import RetouchTrainer
from export.training.picture.run import PictureTrainer
from export.training.picture.trainer import Plan, Trainer
from networks.generator_file import Generator
from networks.looks_file import load_picture_head, load_short_head
from networks.perceptual import STLPIPS
from networks.picture_head import PictureHead
from protocol.cuts import DEFAULT_CUT

EXAMPLES = 1000


def add_arguments(parser: Arguments) -> None:
    """Options of ``train picture`` and ``train retouch`` only."""
    parser.add_argument(
        "--examples",
        type=int,
        default=EXAMPLES,
        help=f"photos and samples, or samples of the retouch, to train on (default: {EXAMPLES})",
    )


def chosen(args: argparse.Namespace, default: Plan) -> Plan:
    """The plan that the options ask for.

    Raises:
        ValueError: a number is out of its range.
    """
    given = {
        "minutes": args.minutes, "steps": args.steps, "batch": args.batch, "rate": args.learning_rate,
        "seed": args.seed, "log_steps": args.log_steps,
    }  # fmt: skip
    plan = replace(default, **{name: value for name, value in given.items() if value is not None})
    for name in ("minutes", "steps", "batch", "rate", "log_steps"):
        if not getattr(plan, name) > 0:
            raise ValueError(f"{name} must be above 0")
    if args.examples < 1:
        raise ValueError("--examples must be at least 1")
    return plan


def run(args: argparse.Namespace) -> None:
    """Train the picture head from the faithful short head; see `train`.

    Raises:
        ValueError: options, faces, weights or the checkpoint do not fit.
    """
    plan, device = chosen(args, Plan()), torch.device(args.device)
    if not args.photos:
        raise FacesError("the picture head needs real faces: name some with `--photos`")
    folder = args.folder or training_folder(args.domain, f"picture{DEFAULT_CUT}")
    generator, looks = _models(args, plan, device)
    synthesis = looks.preview.synthesis
    batches = Batches(generator, read_sets(args.photos, args.shares), torch.zeros(0), synthesis.fine)
    shards = Shards(folder, device=device)
    made = shards.fill(args.examples, looks, batches, seed=plan.seed)
    print(f"{len(shards)} examples, {made} of them new", flush=True)
    head = PictureHead()
    head.start_from(load_short_head(faithful_head_file(args.domain, DEFAULT_CUT), generator=generator.fingerprint))
    train(PictureTrainer(synthesis, head.to(device), shards, _distances(device), plan, folder=folder, say=_say))


def run_retouch(args: argparse.Namespace) -> None:
    """Train the retouch of the picture head that ships; see `train`.

    Raises:
        ValueError: options, weights or the checkpoint do not fit.
    """
    plan, device = chosen(args, RETOUCH), torch.device(args.device)
    folder = args.folder or training_folder(args.domain, f"retouch{DEFAULT_CUT}")
    generator, looks = _models(args, plan, device)
    file = picture_head_file(args.domain, DEFAULT_CUT)
    head = load_picture_head(file, generator=generator.fingerprint).to(device)
    crops = Crops(folder, device=device)
    picture = PictureGraph(looks.preview.synthesis, head)
    made = crops.fill(args.examples, looks, picture, generator, seed=plan.seed)
    print(f"{len(crops)} samples, {made} of them new", flush=True)
    train(RetouchTrainer(head, crops, _distances(device), plan, folder=folder, say=_say))


def train(trainer: Trainer) -> None:
    """Train, from the last checkpoint where there is one; write the averaged weights."""
    how = "continues" if trainer.resume() else "starts"
    _say(f"{how} in {trainer.folder}: {json.dumps(asdict(trainer.plan))}")
    trainer.fit()
    _say(f"done: {trainer.done} steps, {trainer.elapsed / 60:.0f} minutes; weights in {trainer.folder}")


def _models(args: argparse.Namespace, plan: Plan, device: torch.device) -> tuple[Generator, LooksGraph]:
    torch.manual_seed(plan.seed)
    generator = load_generator(args.domain)
    looks = load_looks_graph(generator, args.domain, DEFAULT_CUT).to(device)
    generator.mapping.to(device)
    return generator, looks.eval()


def _distances(device: torch.device) -> tuple[STLPIPS, STLPIPS]:
    return stlpips("alex").to(device), stlpips("vgg").to(device)


def _say(line: str) -> None:
    print(line, flush=True)
