"""``python -m export fetch``: the generator's published weights, verified by sha256, kept as safetensors."""

from __future__ import annotations

import argparse

from export.generator import fetch, load_generator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``python -m export fetch`` has no options of its own."""


def run(args: argparse.Namespace) -> None:
    """Fetch what is missing and say what is there."""
    path = fetch(args.domain)
    print(f"generator {load_generator(args.domain).fingerprint}: {path}")
