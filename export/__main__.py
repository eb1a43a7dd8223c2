"""Command line of the build: ``python -m export COMMAND``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from safetensors import SafetensorError
from tritonclient.utils import InferenceServerException

from assets.allocator import keep_freed
from assets.errors import AssetError
from server.errors import LauncherError

COMMANDS = {
    "import": "read a generator's checkpoint, of several publishers, into a domain of its own",
    "fetch": "fetch the generator's published weights, verify them and keep them as safetensors",
    "graphs": "export the networks as ONNX graphs, those that are out of date",
    "repository": "lay the graphs out as the model repository that Triton serves",
    "verify": "compare torch, ONNX Runtime and the served models on the same inputs",
    "samples": "render generator samples to train on",
    "train": "train the encoder, the detail head, the two looks, the picture head or its retouch",
    "publish": "write trained looks and their heads as the files that are served",
    "kit": "pack what the two looks are trained with, for a machine without a network",
    "directions": "compute the P-norm+ statistics and the directions of W",
}


MODULES = {
    "import": "importer",
    "fetch": "fetch",
    "graphs": "serve.graphs",
    "repository": "serve.repository",
    "verify": "serve.verify",
    "samples": "samples",
    "train": "training.train",
    "publish": "publish",
    "kit": "training.looks.kit",
    "directions": "directions.directions",
}


def domain(text: str) -> str:
    """A domain's name, which is the first part of its models' names."""
    if not re.fullmatch(r"[a-z][a-z0-9]{0,30}", text):
        raise argparse.ArgumentTypeError("a domain is a name of small letters and digits, such as bedroom")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 or 2 with one sentence on stderr, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m export", description="From published weights to what Triton serves."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    named = next((a for a in arguments if not a.startswith("-")), None)
    run: Callable[[argparse.Namespace], None] | None = None
    for command, text in COMMANDS.items():
        sub = commands.add_parser(command, help=text, description=f"{text[0].upper()}{text[1:]}.")
        required = command == "import"
        sub.add_argument(
            "--domain",
            type=domain,
            default=None if required else "ffhq",
            required=required,
            metavar="NAME",
            help="what the generator shows, for example bedroom" if required else "which generator (default: ffhq)",
        )
        if command == named:  # torch takes seconds to import: load only the command that runs
            module = import_module(f"export.{MODULES[command]}")
            module.add_arguments(sub)
            run = module.run
    args = parser.parse_args(arguments)
    assert run is not None
    keep_freed()
    try:
        run(args)
    except (
        AssetError,
        LauncherError,
        InferenceServerException,
        SafetensorError,
        ValueError,
        OSError,
        RuntimeError,
    ) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
