"""Command line of the build: ``python -m export COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m export", description="From published weights to what Triton serves."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {
        "graphs": "export the networks as ONNX graphs",
        "repository": "lay the graphs out as the model repository that Triton serves",
        "samples": "render generator samples to train on",
        "train": "train the encoder",
    }
    name = next((a for a in (sys.argv[1:] if argv is None else argv) if not a.startswith("-")), None)
    run: Callable[[argparse.Namespace], None] | None = None
    for command, text in modules.items():
        sub = commands.add_parser(command, help=text, description=text.capitalize() + ".")
        sub.add_argument("--domain", default="ffhq", choices=["ffhq"], help="which generator (default: ffhq)")
        if command == name:  # torch takes seconds to import: load only the command that runs
            module = import_module(f"export.{command}")
            module.add_arguments(sub)
            run = module.run
    args = parser.parse_args(argv)
    assert run is not None
    run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
