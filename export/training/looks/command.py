"""``python -m export train looks``: trains the two looks and the short head, on a CPU or a GPU.

Pictures of the whole fine half are compared. On a CPU their gradients go through the short head, which is far cheaper
and learns to paint as the whole half does. On a GPU (``--device cuda``) everything goes through the whole half, in
bfloat16, compiled, with ST-LPIPS VGG and all networks trained.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from assets.descriptor import descriptor
from assets.face_net import face_net
from assets.paths import DIRECTIONS, build_dir, training_folder
from assets.perceptual import stlpips
from export.generator import load_generator
from export.training.looks.critic import CodeCritic, Critic
from export.training.looks.draws import Batches
from export.training.looks.faces import LANDMARKS, Faces, FacesError, read_faces
from export.training.looks.fast import on_gpu
from export.training.looks.losses import ImageLoss, Person
from export.training.looks.run import Run, Trainer
from export.training.looks.step import Step
from export.training.looks.weights import (
    measure_statistics,
    read_directions,
    start_from,
    start_states,
)
from networks.generator_file import Generator
from networks.looks import TwoLooks
from networks.mobilestylegan import MobileStyleGAN
from networks.short_head import ShortHead

CPU = Run()
GPU = Run(
    minutes=25.0, batch=48, photos=0.6, rate=4e-4, warm_up=200, whole=True, frozen=(), norms_frozen=False,
    code_steps=400, code_batch=96, crops_from=0.35, save_minutes=4.0, log_steps=50,
)  # fmt: skip
KEPT = 5  # photos of such a batch whose edits are looked at
NEW = ("coarse_look.",)  # parts that weights to start from may lack


class Arguments(Protocol):
    """A parser, or a group of one."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As of ``argparse``."""
        ...


def add_arguments(parser: Arguments) -> None:
    """Options of ``train looks`` only."""
    parser.add_argument(
        "--photos", type=Path, nargs="+", metavar="SET",
        help="real faces: folders of photos, or folders or zip files with landmarks.csv",
    )  # fmt: skip
    parser.add_argument(
        "--shares", type=float, nargs="+", metavar="SHARE", help="share of each set (default: by the root of its size)"
    )
    parser.add_argument(
        "--share-of-photos", type=float, metavar="SHARE", help="share of photos in a batch (default: 0.5, on a GPU 0.6)"
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FOLDER",
        help="weights to start from, looks-*.safetensors and head-*, or `none` (default: those that ship)",
    )
    parser.add_argument(
        "--code-steps", type=int, help="steps that first teach the codes of samples (default: 300, on a GPU 400)"
    )
    parser.add_argument("--log-steps", type=int, help="steps between lines of the log (default: 10, on a GPU 50)")


def add_common(parser: Arguments) -> None:
    """Arguments that ``python -m export train`` has for all networks."""
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path)


def chosen(args: argparse.Namespace) -> Run:
    """The run that the options ask for.

    Raises:
        ValueError: a number is out of its range.
    """
    run = GPU if args.device == "cuda" else CPU
    given = {
        "minutes": args.minutes, "steps": args.steps, "batch": args.batch, "photos": args.share_of_photos,
        "rate": args.learning_rate, "code_steps": args.code_steps, "seed": args.seed, "log_steps": args.log_steps,
    }  # fmt: skip
    run = replace(run, **{name: value for name, value in given.items() if value is not None})
    for name in ("minutes", "steps", "batch", "rate", "log_steps"):
        if not getattr(run, name) > 0:
            raise ValueError(f"{name} must be above 0")
    if not args.photos:
        raise FacesError("the looks need real faces: name some with `--photos`")
    if not 0 <= run.photos <= 1:
        raise ValueError("--share-of-photos must be from 0 to 1")
    return run


def read_sets(paths: list[Path], shares: list[float] | None) -> list[tuple[Faces, float]]:
    """The sets of faces with their shares.

    Raises:
        FacesError: one cannot be read, or the numbers of sets and shares differ.
    """
    sets = [found_faces(path) for path in paths]
    if shares and len(shares) != len(sets):
        raise FacesError(f"`--shares` has {len(shares)} numbers for {len(sets)} sets: expected one for each")
    return list(zip(sets, shares or [math.sqrt(len(faces.squares)) for faces in sets], strict=True))


def found_faces(path: Path) -> Faces:
    """A set, or the faces in a folder of photos, which are found once and kept in the build folder."""
    if not path.is_dir() or (path / LANDMARKS).exists():
        return read_faces(path)
    names = "\n".join(sorted(str(p.relative_to(path)) for p in path.rglob("*")))
    target = build_dir() / "faces" / f"{path.name}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
    if not (target / LANDMARKS).exists():
        from export.training.looks.collect import collect  # ONNX Runtime, which a GPU machine may lack

        print(f"{collect(path, target)} faces in {path}", flush=True)
    return read_faces(target)


def make(
    generator: Generator,
    run: Run,
    sets: list[tuple[Faces, float]],
    *,
    start: tuple[dict[str, Tensor], dict[str, Tensor]] | None,
) -> tuple[Step, Batches]:
    """The networks of a run on the generator's device, and its batches; ``start`` is of `start_states`."""
    synthesis = generator.synthesis
    if not isinstance(synthesis, MobileStyleGAN):
        raise ValueError(  # noqa: TRY004
            "the two looks are for a MobileStyleGAN; train the encoder and the detail head instead"
        )
    device = generator.mapping.w_avg.device
    cut = 16
    looks = TwoLooks(cut=cut, coarse=synthesis.coarse_styles(cut), styles=synthesis.fine_styles(cut)).to(device)
    head = ShortHead().to(device)
    measure_statistics(looks, generator, torch.Generator().manual_seed(run.seed + 1))
    if start is not None:
        start_from(looks, start[0], new=NEW)
        start_from(head, start[1])
    on_a_gpu = device.type == "cuda"
    alex = stlpips("alex").to(device)
    person = Person(descriptor(), face_net()).to(device)
    whole = stlpips("vgg").to(device) if on_a_gpu else alex
    sizes = {"side": 192, "core": (160, 192), "eye": (64, 96)} if on_a_gpu else {}
    loss = ImageLoss(whole, alex, person, **sizes)  # type: ignore[arg-type]
    critics = {"critic": Critic().to(device), "code_critic": CodeCritic(styles=looks.styles).to(device)}
    step = Step(synthesis, looks, head, loss, first_frozen="first." in run.frozen, **critics)  # type: ignore[arg-type]
    if on_a_gpu:
        on_gpu(step, whole, alex)
        step.kept = KEPT
        for faces, _ in sets:
            faces.load(device)
    elif any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        step.compile()
    directions = read_directions(DIRECTIONS / "ffhq", synthesis.num_styles).to(device)
    return step, Batches(generator, sets, directions, step.whole)


def run(args: argparse.Namespace) -> None:
    """Train, from the last checkpoint where there is one, then write the averaged weights.

    Raises:
        ValueError: options, faces, weights or the checkpoint do not fit.
    """
    wanted, device = chosen(args), torch.device(args.device)
    torch.manual_seed(wanted.seed)
    folder = args.folder or training_folder(args.domain, "looks16")
    generator = load_generator(args.domain)
    generator.mapping.to(device)
    generator.synthesis.to(device)
    sets = read_sets(args.photos, args.shares)
    step, batches = make(generator, wanted, sets, start=start_states(args.start_from, args.domain))
    trainer = Trainer(step, batches, wanted, folder=folder, say=lambda line: print(line, flush=True))
    print(f"{'continues' if trainer.resume() else 'starts'} in {folder}: {json.dumps(asdict(wanted))}", flush=True)
    trainer.fit()
    print(f"done: {trainer.done} steps, {trainer.seen} photos, {trainer.elapsed / 60:.0f} minutes; weights in {folder}")
