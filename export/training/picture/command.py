"""``python -m export train picture``: trains the picture head on real faces and samples, with the looks fixed."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace

import torch

from assets.paths import faithful_head_file, training_folder
from assets.perceptual import stlpips
from export.generator import load_generator
from export.serve.looks import load_looks_graph
from export.training.looks.command import Arguments, read_sets
from export.training.looks.draws import Batches
from export.training.looks.faces import FacesError
from export.training.picture.examples import Shards
from export.training.picture.run import PictureTrainer, Plan
from networks.looks_file import load_short_head
from networks.picture_head import PictureHead
from protocol.cuts import DEFAULT_CUT

EXAMPLES = 1000


def add_arguments(parser: Arguments) -> None:
    """Options of ``train picture`` only."""
    parser.add_argument(
        "--examples", type=int, default=EXAMPLES, help=f"photos and samples to train on (default: {EXAMPLES})"
    )


def chosen(args: argparse.Namespace) -> Plan:
    """The plan that the options ask for.

    Raises:
        ValueError: a number is out of its range, or there are no faces.
    """
    given = {
        "minutes": args.minutes, "steps": args.steps, "batch": args.batch, "rate": args.learning_rate,
        "seed": args.seed, "log_steps": args.log_steps,
    }  # fmt: skip
    plan = replace(Plan(), **{name: value for name, value in given.items() if value is not None})
    for name in ("minutes", "steps", "batch", "rate", "log_steps"):
        if not getattr(plan, name) > 0:
            raise ValueError(f"{name} must be above 0")
    if args.examples < 1:
        raise ValueError("--examples must be at least 1")
    if not args.photos:
        raise FacesError("the picture head needs real faces: name some with `--photos`")
    return plan


def run(args: argparse.Namespace) -> None:
    """Make the examples, then train, from the last checkpoint where there is one; write the averaged weights.

    Raises:
        ValueError: options, faces, weights or the checkpoint do not fit.
    """
    plan, device = chosen(args), torch.device(args.device)
    torch.manual_seed(plan.seed)
    folder = args.folder or training_folder(args.domain, f"picture{DEFAULT_CUT}")
    generator = load_generator(args.domain)
    looks = load_looks_graph(generator, args.domain, DEFAULT_CUT).to(device)
    generator.mapping.to(device)
    synthesis = looks.preview.synthesis
    batches = Batches(generator, read_sets(args.photos, args.shares), torch.zeros(0), synthesis.fine)
    shards = Shards(folder, device=device)
    made = shards.fill(args.examples, looks, batches, seed=plan.seed)
    print(f"{len(shards)} examples, {made} of them new", flush=True)
    head = PictureHead()
    head.start_from(load_short_head(faithful_head_file(args.domain, DEFAULT_CUT), generator=generator.fingerprint))
    distances = stlpips("alex").to(device), stlpips("vgg").to(device)
    trainer = PictureTrainer(
        synthesis, head.to(device), shards, distances, plan, folder=folder, say=lambda line: print(line, flush=True)
    )
    print(f"{'continues' if trainer.resume() else 'starts'} in {folder}: {json.dumps(asdict(plan))}", flush=True)
    trainer.fit()
    print(f"done: {trainer.done} steps, {trainer.elapsed / 60:.0f} minutes; weights in {folder}")
