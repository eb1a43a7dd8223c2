"""The command line: ``python -m bench COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from assets.errors import AssetError
from client.errors import ClientError
from server.errors import LauncherError

COMMANDS = {
    "throughput": "throughput of the served models, compared with bare ONNX Runtime",
    "batch": "throughput and memory of batch edits, compared with the bare graphs",
    "quality": "quality of reconstructions of photos and samples, by running servers",
    "change": "edits in the whole photo, compared with simpler ways, by a running server",
    "codes": "quality and edits of one-pass codes, without a server",
    "generators": "speed of the generators in every format and precision, without a server",
    "paper": "comparison of the inversion methods, as in the paper",
    "refine": "speed and convergence of the refinement recipes, without a server",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 after an error message, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure quality and speed.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((a for a in arguments if not a.startswith("-")), None)
    run: Callable[[argparse.Namespace], None] | None = None
    for command, text in COMMANDS.items():
        sub = commands.add_parser(command, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if command == named:  # others import torch, whose threads would disturb the throughput
            module = import_module(f"bench.{command}")
            module.add_arguments(sub)
            run = module.run
    args = parser.parse_args(arguments)
    assert run is not None
    try:
        run(args)
    except (ValueError, OSError, RuntimeError, ClientError, AssetError, LauncherError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
