"""Command line of the measurements: ``python -m bench COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from assets.errors import AssetError
from client.errors import ClientError
from server.errors import ServerError

COMMANDS = {
    "throughput": "compare the served models with bare ONNX Runtime on the same graphs",
    "batch": "compare batches of edits with the bare graphs, one process and Ray, and their memory",
    "quality": "compare reconstructions with photos and generator samples, against a running server",
    "generators": "how fast generators run in every format and precision, without a server",
    "paper": "compare the methods of inversion as the paper does, on photos and on faces that are moved",
    "refine": "how fast the recipes of the refinement get how close, without a server",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 with one sentence on stderr, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measurements of speed and of quality.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((a for a in arguments if not a.startswith("-")), None)
    run: Callable[[argparse.Namespace], None] | None = None
    for command, text in COMMANDS.items():
        sub = commands.add_parser(command, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if command == named:  # quality imports torch, whose threads have no place in a measurement of throughput
            module = import_module(f"bench.{command}")
            module.add_arguments(sub)
            run = module.run
    args = parser.parse_args(arguments)
    assert run is not None
    try:
        run(args)
    except (ValueError, OSError, RuntimeError, ClientError, AssetError, ServerError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
