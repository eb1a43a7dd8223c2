"""``python -m export publish FOLDER``: the weights that a training of looks or heads left, as the files to serve."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from assets.paths import (
    LEARNED,
    coarse_look_file,
    faithful_head_file,
    faithful_looks_file,
    generator_file,
    looks_file,
    picture_head_file,
    short_head_file,
)
from export.training.looks.weights import StartError, read_parts, renamed, start_from
from networks.generator_file import generator_metadata, read_shape
from networks.looks import CoarseStyles, TwoLooks
from networks.looks_file import save_coarse_styles, save_looks, save_picture_head, save_short_head
from networks.picture_head import PictureHead
from networks.short_head import ShortHead
from protocol.cuts import DEFAULT_CUT

PARTS = ("looks", "coarse_look", "short_head")
FAITHFUL = ("faithful_looks", "faithful_head")
PICTURE = "picture_head"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export publish``."""
    parser.add_argument("folder", type=Path, help="with looks-*.safetensors and head-*.safetensors, or picture-*")
    parser.add_argument(
        "--only", nargs="+", choices=(*PARTS, *FAITHFUL, PICTURE), default=PARTS, metavar="PART",
        help=f"the files to write, of {', '.join((*PARTS, *FAITHFUL, PICTURE))} (default: the first three)",
    )  # fmt: skip
    parser.add_argument("--training", default="", metavar="TEXT", help="how they were trained, for the files' metadata")
    parser.add_argument("--weights", type=Path, help="folder for the files (default: networks/weights/DOMAIN)")


def run(args: argparse.Namespace) -> None:
    """Write the files; weights that do not fit are refused before the first.

    Raises:
        StartError: the folder has no such weights, or they do not fit.
    """
    domain, folder, cut = args.domain, args.weights or LEARNED / args.domain, DEFAULT_CUT
    generator = generator_metadata(generator_file(domain))["fingerprint"]
    synthesis = read_shape(generator_file(domain))
    looks = TwoLooks(coarse=synthesis.coarse_styles(cut), styles=synthesis.fine_styles(cut))
    head, picture = ShortHead(), PictureHead()
    trained: dict[str, nn.Module] = {"picture": picture} if PICTURE in args.only else {}
    if set(args.only) - {PICTURE}:
        trained |= {"looks": looks, "head": head}
    for name, network in trained.items():
        state = renamed(read_parts(args.folder, name))
        if not state:
            raise StartError(f"no weights in `{args.folder}`: expected `{name}-0.safetensors`")
        start_from(network, state, new=() if "coarse_look" in args.only else ("coarse_look.",))
    parts: dict[str, tuple[Path, Callable[..., None]]] = {
        "looks": (looks_file(domain, cut), partial(save_looks, looks)),
        "coarse_look": (coarse_look_file(domain, cut), partial(save_coarse_styles, CoarseStyles.of(looks))),
        "short_head": (short_head_file(domain, cut), partial(save_short_head, head)),
        "faithful_looks": (faithful_looks_file(domain, cut), partial(save_looks, looks)),
        "faithful_head": (faithful_head_file(domain, cut), partial(save_short_head, head)),
        PICTURE: (picture_head_file(domain, cut), partial(save_picture_head, picture)),
    }
    for part in args.only:
        file, save = parts[part]
        path = folder / file.name
        save(path, generator=generator, training=args.training)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; describe it in `{path.with_suffix('.md').name}`")
