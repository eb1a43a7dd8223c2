"""The command line: ``client`` or ``python -m client``.

Exit codes: 0 done; 1 some photos of a batch failed; 2 bad input or usage; 3 no server, or trouble with it;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from client.api import DEFAULT_DOMAIN, DEFAULT_REFINE_URL, DEFAULT_URL
from client.batch.plan import FORMATS
from client.commands import invert as inverting
from client.commands import served as commands
from client.commands.batch import edit as edit_batch
from client.commands.refining import PREVIEW_EVERY
from client.commands.report import BAD_INPUT, INTERRUPTED, SERVER_TROUBLE
from client.errors import ClientError, ServerError
from client.files.photo import FORMAT_NAMES, MAX_BYTES, MAX_MEGAPIXELS, MIN_SIDE
from client.triton.session import MAX_STRENGTH, VERSION
from client.triton.transport import Timeout
from client.wire.request_id import SERVICE, named
from protocol.methods import CUTS, DEFAULT, DEFAULT_CUT, METHODS, PRESETS
from protocol.options import LIMITS, WEIGHT, Options
from protocol.terms import TERMS
from protocol.tracing import tracing

EXIT_CODES = (
    "exit codes: 0 done; 1 some photos of a batch failed; 2 bad input or usage; 3 no server, or trouble with it; "
    "130 interrupted"
)
PHOTOS = (
    f"Photos: {FORMAT_NAMES}, of at most {MAX_MEGAPIXELS} megapixels (checked before decoding) and "
    f"{MAX_BYTES // 2**20} MiB, with sides of at least {MIN_SIDE} pixels. EXIF orientation and colour profiles are "
    "applied, transparency becomes mid grey, and metadata is dropped."
)
STOPPED = (
    "Ctrl-C, or a side-car that stays away, leaves the inversion of the last checkpoint, and `client refine` goes on "
    "from it."
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="client",
        description="Invert unaligned photos into a generator served by Triton, and edit them.",
        epilog=f"{PHOTOS} {EXIT_CODES}",
    )
    top.add_argument("--version", action="version", version=VERSION, help="print the version and exit")
    subparsers = top.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    command = _command(
        subparsers,
        "invert",
        "Invert a photo: an inversion file, its picture, and a side-by-side sheet.",
        f"Triton's encoder makes the start, and the side-car refines it. {STOPPED} {PHOTOS}",
    )
    command.add_argument("photo", metavar="PHOTO", help="an image file")
    command.add_argument(
        "--fast", action="store_true", help="invert by the encoder alone, in one request, without a side-car"
    )
    _add_method(command)
    command.add_argument(
        "--crop",
        metavar="X,Y,SIZE",
        help="the square to invert, in pixels of the photo as shown (default: the largest centred square)",
    )
    command.add_argument(
        "--edit",
        metavar="NAME=S,S",
        action="append",
        default=[],
        help="also edit along a direction, a name or a .safetensors file, by these strengths; repeatable (age=-3,3)",
    )
    _add_refinement(command)
    _add_out(command, "out/PHOTO/, without the photo's suffix")
    _add_server(command)
    command.set_defaults(run=inverting.invert)

    _add_batch(subparsers)

    command = _command(
        subparsers,
        "refine",
        "Refine an inversion, going on exactly where it was interrupted.",
        "From a finished refinement, from an inversion of --fast, and with another --preset, a new one starts. What "
        f"INVERSION records is the default of the options where it goes on. {STOPPED}",
    )
    command.add_argument("inversion", metavar="INVERSION", help="an inversion file, as written by invert")
    command.add_argument(
        "--photo",
        metavar="PHOTO",
        help="the photo that was inverted; needed for an inversion of --fast, which has none",
    )
    _add_refinement(command)
    _add_out(command, "INVERSION is replaced, and its pictures are put beside it")
    _add_server(command)
    command.set_defaults(run=inverting.refine, fast=False)

    command = _command(subparsers, "edit", "Edit an inversion along a direction: a picture per strength, and a sheet.")
    command.add_argument("inversion", metavar="INVERSION", help="an inversion file, as written by invert")
    command.add_argument(
        "--direction",
        required=True,
        metavar="NAME",
        help="a name from `client directions`, or a .safetensors file of one's own",
    )
    command.add_argument(
        "--strength",
        required=True,
        type=float,
        action="append",
        metavar="S",
        help=f"in the direction's units, from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}; repeatable (--strength -3)",
    )
    _add_out(command, "out/INVERSION/, without its suffix")
    _add_server(command)
    command.set_defaults(run=commands.edit)

    command = _command(subparsers, "generate", "Draw a sample of the generator.")
    command.add_argument(
        "--seed", required=True, type=int, metavar="N", help="of NumPy's PCG64; the same seed, the same face"
    )
    command.add_argument("--psi", type=float, default=0.7, metavar="PSI", help="truncation from -2 to 2 (default: 0.7)")
    _add_out(command, "out/generated/")
    _add_server(command)
    command.set_defaults(run=commands.generate)

    command = _command(subparsers, "directions", "List the directions that come with the package; asks no server.")
    _add_common(command)
    command.set_defaults(run=commands.list_directions)

    command = _command(subparsers, "status", "Say what the server serves; exits with 3 unless every model is ready.")
    _add_server(command)
    command.set_defaults(run=commands.status)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: of the command line; those of the process by default.
    """
    options = parser().parse_args(arguments)
    # gRPC's own log would stand beside the one sentence that says what went wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = signal.getsignal(signal.SIGINT)
    try:
        with named() as request, tracing(SERVICE).span(f"client {options.command}", request_id=request):
            report = options.run(options)
    except ClientError as problem:
        code = SERVER_TROUBLE if isinstance(problem, ServerError) else BAD_INPUT
        return _failed(options, type(problem).__name__, str(problem), code, request)
    except KeyboardInterrupt as problem:
        return _failed(options, "Interrupted", str(problem) or "interrupted", INTERRUPTED, request)
    finally:
        with suppress(ValueError, TypeError):
            # A refinement that is stopped turns Ctrl-C off until its file is written.
            signal.signal(signal.SIGINT, handler)
    print(json.dumps(report.data) if options.json else "\n".join(report.lines))
    return int(report.code)


def _failed(options: argparse.Namespace, kind: str, message: str, code: int, request: str) -> int:
    if options.json:
        print(json.dumps({"error": {"kind": kind, "message": message, "request": request}}))
    print(f"client: {message}", file=sys.stderr)
    return code


def _command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, more: str = ""
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = subparsers.add_parser(
        name, help=text, description=f"{text} {more}".strip(), epilog=EXIT_CODES
    )
    return command


def _add_batch(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    batch = _command(subparsers, "batch", "Work on many photos against a deployment.")
    actions = batch.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    command = _command(
        actions,
        "edit",
        "Invert and edit many photos: a folder of results for each, a report, and a contact sheet.",
        "A ledger in DIR says what is done, so that a batch which was stopped or killed goes on with --resume and "
        f"makes every photo once. {PHOTOS}",
    )
    add = command.add_argument
    add(
        "--photos",
        required=True,
        metavar="WHICH",
        help='a folder, a pattern in quotes, or a .jsonl file of objects with "photo" and optionally "crop" and "name"',
    )
    add("--out", required=True, metavar="DIR", help="folder of the results, the ledger, the report and the sheet")
    add(
        "--edit",
        metavar="NAME=S,S",
        action="append",
        default=[],
        help="edit along a direction, a name or a .safetensors file, by these strengths; repeatable (age=-3,3)",
    )
    add("--fast", action="store_true", help="invert by the encoder alone, without a side-car")
    _add_method(command)
    add(
        "--resume",
        action="store_true",
        help="go on with the batch in DIR where there is one, begun with the same choices",
    )
    add("--retry-failed", action="store_true", help="go on with it, and try photos that failed once more")
    add(
        "--shard",
        metavar="I/N",
        help="only every N-th photo, from the I-th on (0/N to N-1/N), with a ledger of its own",
    )
    add("--concurrency", type=int, default=4, metavar="N", help="photos at a time, up to 256 (default: 4)")
    add("--format", choices=FORMATS, default="jpeg", help="of the pictures (default: jpeg)")
    add("--engine", choices=["local", "ray"], default="local", help="this process, or a Ray cluster (default: local)")
    add(
        "--address",
        metavar="ADDR",
        help="of the Ray cluster, whose workers share the photos' and the results' file system, or local to start one "
        "here (default: $RAY_ADDRESS)",
    )
    add("--workers", type=int, default=2, metavar="N", help="of Ray, each with --concurrency photos (default: 2)")
    _add_refinement(command)
    _add_server(command)
    command.set_defaults(run=edit_batch)


def _add_method(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--method",
        choices=METHODS,
        default=DEFAULT,
        help=f"{', '.join(f'{name} ({method.space})' for name, method in METHODS.items())} (default: {DEFAULT})",
    )
    command.add_argument(
        "--cut", type=int, choices=CUTS, help=f"side of f, for {DEFAULT} (default: {DEFAULT_CUT}; 8 is easier to edit)"
    )


def _add_out(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--out",
        metavar="DIR",
        help=f"folder for the results, created where missing; existing results are replaced (default: {default})",
    )


def _add_refinement(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("refinement")
    group.add_argument("--preset", metavar="NAME", help=f"the recipe: {', '.join(PRESETS)} (default: the method's)")
    group.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help=f"steps of the whole refinement, up to {LIMITS['steps'].high} (default: the recipe's)",
    )
    group.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"budget of optimisation, up to {LIMITS['seconds'].high}, over all attempts (default: none)",
    )
    group.add_argument(
        "--target",
        type=float,
        metavar="D",
        help=f"stop once the perceptual distance is at most this, up to {LIMITS['target'].high} (default: never)",
    )
    group.add_argument(
        "--weight",
        action="append",
        metavar="NAME=VALUE",
        help=f"weight of a term of the loss ({', '.join(TERMS)}), up to {WEIGHT.high:g}; repeatable "
        "(default: the recipe's)",
    )
    group.add_argument(
        "--clip",
        type=float,
        metavar="V",
        help=f"keep every number of P-norm+(w_M+) within +-V, up to {LIMITS['clip'].high}, in place of the term p_norm "
        "(default: do not)",
    )
    group.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="N",
        help="steps between checkpoints, which is what a killed side-car costs at most "
        f"(default: {Options().checkpoint_every})",
    )
    group.add_argument(
        "--preview",
        metavar="FILE",
        help=f"a JPEG of what the inversion shows, replaced every {PREVIEW_EVERY} steps, and as often as there are "
        "checkpoints (default: none)",
    )
    group.add_argument(
        "--refine-url",
        metavar="HOST:PORT",
        help=f"the side-car's gRPC endpoint (default: $UNALIGNED_REFINE_URL, else {DEFAULT_REFINE_URL})",
    )
    group.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="how long a side-car that went away, starts or is full, or a Triton that went away, is waited for "
        f"(default: {Timeout().patience:g})",
    )


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--domain", default=DEFAULT_DOMAIN, metavar="NAME", help=f"which generator to use (default: {DEFAULT_DOMAIN})"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text, also for errors")


def _add_server(command: argparse.ArgumentParser) -> None:
    _add_common(command)
    command.add_argument(
        "--url",
        metavar="HOST:PORT",
        help=f"Triton's gRPC endpoint (default: $UNALIGNED_URL, else {DEFAULT_URL})",
    )
    command.add_argument(
        "--timeout",
        type=float,
        default=Timeout().request,
        metavar="SECONDS",
        help=f"deadline for each request, retries included (default: {Timeout().request:g})",
    )
    group = command.add_argument_group(
        "access", "How the servers let the client in; without these, plain text. Each is also an environment variable."
    )
    add = group.add_argument
    add("--tls", action="store_const", const=True, help="connect by TLS (implied by the next three; $UNALIGNED_TLS=1)")
    add("--tls-ca", metavar="FILE", help="PEM authorities of the servers' certificates ($UNALIGNED_TLS_CA)")
    add("--tls-cert", metavar="FILE", help="PEM certificate of the client ($UNALIGNED_TLS_CERT)")
    add("--tls-key", metavar="FILE", help="PEM key of that certificate ($UNALIGNED_TLS_KEY)")
    add("--token", metavar="TOKEN", help="sent with every request; @FILE reads it from a file ($UNALIGNED_TOKEN)")
    add(
        "--config",
        metavar="FILE",
        help="TOML with any of url, refine-url, tls, tls-ca, tls-cert, tls-key and token, for what neither an option "
        "nor a variable says (default: $UNALIGNED_CONFIG, else ~/.config/unaligned/client.toml where there is one)",
    )
