"""``python -m export publish FOLDER``: the weights that a training of the two looks left, as the files to serve."""

from __future__ import annotations

import argparse
from pathlib import Path

from assets.paths import LEARNED, coarse_look_file, generator_file, looks_file, short_head_file
from export.training.looks.weights import StartError, read_parts, renamed, start_from
from networks.generator_file import generator_metadata, read_shape
from networks.looks import CoarseStyles, TwoLooks
from networks.looks_file import save_coarse_styles, save_looks, save_short_head
from networks.short_head import ShortHead
from protocol.cuts import DEFAULT_CUT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export publish``."""
    parser.add_argument("folder", type=Path, help="with looks-*.safetensors and head-*.safetensors")
    parser.add_argument("--training", default="", metavar="TEXT", help="how they were trained, for the files' metadata")
    parser.add_argument("--weights", type=Path, help="folder for the files (default: networks/weights/DOMAIN)")


def run(args: argparse.Namespace) -> None:
    """Write the three files; weights that do not fit are refused before the first.

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
        start_from(network, state)
    looks_at, coarse_at, head_at = (
        folder / file(domain, DEFAULT_CUT).name for file in (looks_file, coarse_look_file, short_head_file)
    )
    save_looks(looks, looks_at, generator=generator, training=args.training)
    save_coarse_styles(CoarseStyles.of(looks), coarse_at, generator=generator, training=args.training)
    save_short_head(head, head_at, generator=generator, training=args.training)
    for path in (looks_at, coarse_at, head_at):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; describe it in `{path.with_suffix('.md').name}`")
