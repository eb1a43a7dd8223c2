"""``python -m export publish FOLDER``: the weights that a training of the two looks left, as the files to serve."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from assets.paths import (
    LEARNED,
    coarse_look_file,
    faithful_head_file,
    faithful_looks_file,
    generator_file,
    looks_file,
    short_head_file,
)
from export.training.looks.weights import StartError, read_parts, renamed, start_from
from networks.generator_file import generator_metadata, read_shape
from networks.looks import CoarseStyles, TwoLooks
from networks.looks_file import save_coarse_styles, save_looks, save_short_head
from networks.short_head import ShortHead
from protocol.cuts import DEFAULT_CUT

PARTS = ("looks", "coarse_look", "short_head")
FAITHFUL = ("faithful_looks", "faithful_head")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export publish``."""
    parser.add_argument("folder", type=Path, help="with looks-*.safetensors and head-*.safetensors")
    parser.add_argument(
        "--only", nargs="+", choices=(*PARTS, *FAITHFUL), default=PARTS, metavar="PART",
        help=f"the files to write, of {', '.join((*PARTS, *FAITHFUL))} (default: the first three)",
    )  # fmt: skip
    parser.add_argument("--training", default="", metavar="TEXT", help="how they were trained, for the files' metadata")
    parser.add_argument("--weights", type=Path, help="folder for the files (default: networks/weights/DOMAIN)")


def run(args: argparse.Namespace) -> None:
    """Write the files; weights that do not fit are refused before the first.

    Raises:
        StartError: the folder has no such weights, or they do not fit.
    """
    domain, folder = args.domain, args.weights or LEARNED / args.domain
    generator = generator_metadata(generator_file(domain))["fingerprint"]
    synthesis = read_shape(generator_file(domain))
    looks = TwoLooks(coarse=synthesis.coarse_styles(DEFAULT_CUT), styles=synthesis.fine_styles(DEFAULT_CUT))
    head = ShortHead()
    for network, name in ((looks, "looks"), (head, "head")):
        state = renamed(read_parts(args.folder, name))
        if not state:
            raise StartError(f"no weights in `{args.folder}`: expected `{name}-0.safetensors`")
        start_from(network, state, new=() if "coarse_look" in args.only else ("coarse_look.",))
    parts: dict[str, tuple[Path, Callable[..., None]]] = {
        "looks": (looks_file(domain, DEFAULT_CUT), partial(save_looks, looks)),
        "coarse_look": (coarse_look_file(domain, DEFAULT_CUT), partial(save_coarse_styles, CoarseStyles.of(looks))),
        "short_head": (short_head_file(domain, DEFAULT_CUT), partial(save_short_head, head)),
        "faithful_looks": (faithful_looks_file(domain, DEFAULT_CUT), partial(save_looks, looks)),
        "faithful_head": (faithful_head_file(domain, DEFAULT_CUT), partial(save_short_head, head)),
    }
    for part in args.only:
        file, save = parts[part]
        path = folder / file.name
        save(path, generator=generator, training=args.training)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; describe it in `{path.with_suffix('.md').name}`")
