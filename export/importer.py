"""``python -m export import FILE --domain NAME``: a generator's checkpoint into a servable model repository.

The file's content says what it is (:mod:`export.checkpoints.reader`); nothing in it is executed. The P-norm+
statistics and GANSpace's directions of its W are made too. Everything is computed before the first file is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from assets.paths import DIRECTIONS, LEARNED, REPOSITORY, encoder_file, generator_file
from assets.yunet import face_finder
from export.checkpoints.conversion import convert
from export.checkpoints.errors import CheckpointError
from export.checkpoints.reader import read_checkpoint
from export.directions.cards import write_pnorm
from export.directions.directions import write_components
from export.generator import FACES, mean_w
from export.latents import statistics
from export.samples import at_size
from export.serve import graphs, repository
from networks.generator_file import Generator, description, fingerprint, generator_metadata, save_generator, state_of
from networks.mapping import STYLE_DIM
from networks.pixels import to_uint8
from networks.synthesis import Synthesis

MAPPED = 1_000_000
SHOWN = 8  # samples in the picture
PSI = 0.7
BUILT_IN = "ffhq"


class ImportRefusedError(CheckpointError):
    """The generator was read, but it cannot be served, or not under that name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export import``."""
    parser.add_argument(
        "file", type=Path, help="a checkpoint of NVlabs (.pkl), rosinality (.pt), genforce (.pth) or this project"
    )
    parser.add_argument("--replace", action="store_true", help="replace the generator that the domain has")
    parser.add_argument(
        "--mapped", type=int, default=MAPPED, help=f"latents to map for the statistics of W (default: {MAPPED:,})"
    )
    parser.add_argument(
        "--weights", type=Path, help="folder for the statistics of W (default: networks/weights/DOMAIN)"
    )
    parser.add_argument("--directions", type=Path, help="folder for the directions (default: client/directions/DOMAIN)")
    graphs.add_arguments(parser)
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="default: model_repository")


def run(args: argparse.Namespace) -> None:
    """Read, convert, compute, and only then write.

    Raises:
        CheckpointError: the file is refused; nothing was written.
    """
    domain = checked_domain(args.domain)
    target = generator_file(domain)
    say(f"reading {args.file.name}")
    checkpoint = read_checkpoint(args.file)
    converted = convert(checkpoint)
    mapping = converted.mapping.eval().requires_grad_(False)
    synthesis = converted.synthesis.eval().requires_grad_(False)
    mark = fingerprint(state_of(mapping, synthesis))
    if target.exists() and not args.replace and (other := generator_metadata(target)["fingerprint"]) != mark:
        raise ImportRefusedError(f"domain `{domain}` already has generator {other}: pass --replace or another --domain")
    say(f"drawing {SHOWN} samples of {described(synthesis)}")
    if not converted.has_w_avg:
        mapping.w_avg.copy_(mean_w(mapping))
    picture = contact_sheet(Generator(mapping=mapping, synthesis=synthesis, fingerprint=mark))
    say(f"mapping {args.mapped:,} latents for the statistics of W")
    moments = statistics(mapping, count=args.mapped)

    source = f"{checkpoint.kind} checkpoint {args.file.name}"
    faces = has_faces(picture)
    metadata = {"source": source, FACES: "true" if faces else "false"}
    save_generator(mapping, synthesis, target, domain=domain, metadata=metadata)
    shown = target.with_name("samples.png")
    Image.fromarray(picture).save(shown)
    write_pnorm(args.weights or LEARNED / domain, moments, generator=mark)
    write_components(args.directions or DIRECTIONS / domain, moments, None, generator=mark, styles=synthesis.num_styles)
    print(f"generator {mark}: {target}")
    print(f"  {described(synthesis)}, from a checkpoint of {checkpoint.kind}; samples: {shown}", flush=True)
    print(f"  its samples show {'faces: photos are aligned by them' if faces else 'no faces'}", flush=True)
    say("exporting the graphs, which takes minutes")
    graphs.run(args)
    repository.run(args)
    if not encoder_file(domain, graphs.CUT).exists():
        print("It has no encoder yet; docs/training.md shows how to train one.")


def say(step: str) -> None:
    """Say what begins, at once even where the output is a pipe."""
    print(f"{step} ...", flush=True)


def checked_domain(domain: str) -> str:
    """A domain that an import may write to.

    Raises:
        ImportRefusedError: it is the project's own, or no name.
    """
    if domain == BUILT_IN:
        raise ImportRefusedError(
            f"domain `{BUILT_IN}` holds the generator that ships with the project: pass another --domain"
        )
    return domain


@torch.no_grad()
def contact_sheet(generator: Generator) -> NDArray[np.uint8]:
    """Eight seeded samples at psi 0.7, uint8 [512, 1024, 3].

    Raises:
        ImportRefusedError: they are not pictures.
    """
    z = torch.randn(SHOWN, STYLE_DIM, generator=torch.Generator().manual_seed(0))
    w_plus = generator.mapping(z, PSI)[:, None].expand(-1, generator.synthesis.num_styles, -1)
    image = torch.cat([at_size(generator.synthesis(w[None])) for w in w_plus])
    if not torch.isfinite(image).all() or image.std() == 0:
        raise ImportRefusedError("the network does not make images: its samples have a single colour or are not finite")
    pixels = to_uint8(image)
    # [row, column, channel, y, x] -> [row, y, column, x, channel]
    grid = pixels.reshape(2, SHOWN // 2, *pixels.shape[1:]).permute(0, 3, 1, 4, 2)
    sheet: NDArray[np.uint8] = grid.reshape(2 * grid.shape[1], -1, 3).numpy()
    return sheet


def has_faces(picture: NDArray[np.uint8]) -> bool:
    """Whether half of the samples or more are faces; uint8 [H, W, 3], as of :func:`contact_sheet`."""
    *_, scores = face_finder()(torch.from_numpy(picture))
    return int((scores > 0).sum()) >= SHOWN // 2


def described(synthesis: Synthesis) -> str:
    """The network in words."""
    network = description(synthesis)
    kind = f"{network['family']} {network.get('architecture', '')}".strip()
    return f"{kind}, {synthesis.size} px, {synthesis.num_styles} styles"
