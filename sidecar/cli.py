"""The command line: ``python -m sidecar``.

Exit status: 1 the start failed, told in one sentence; 2 a wrong command line; 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sidecar.job import Engine
from sidecar.service import log
from sidecar.service.door import Door, ServeError, Tls, token_of
from sidecar.service.server import ServiceSettings, printed, serve, stopping_on_signals

EPILOG = (
    "SIGTERM and SIGINT drain: running jobs send a checkpoint and end with UNAVAILABLE. "
    "Exit status: 1 the start failed, 2 wrong usage, 130 and 143 after SIGINT and SIGTERM."
)
COMPILE = {"auto": None, "on": True, "off": False}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Serve until a signal ends it."""
    options = parser().parse_args(argv)
    if bool(options.tls_cert) != bool(options.tls_key) or (options.tls_client_ca and not options.tls_cert):
        parser().error("--tls-cert and --tls-key go together, and --tls-client-ca needs both")
    if options.secrets and (options.tls_cert or options.token_file):
        parser().error("--secrets stands for --tls-cert, --tls-key, --tls-client-ca and --token-file")
    log.configure(options.log_format)
    # What Pillow warns of is refused or tolerated by sidecar.service.photo; the log is the log's alone.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    status = 1
    try:
        settings = ServiceSettings(
            address=options.address,
            port=options.port,
            metrics_port=options.metrics_port,
            batch=options.batch,
            queue=options.queue,
            slice_steps=options.slice,
            grace=options.grace,
            door=_door(options),
        )
        status = asyncio.run(_serve(options, settings))
    except (ServeError, ValueError, OSError, RuntimeError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    except Exception:
        logging.getLogger("sidecar").exception("the side-car failed")
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of the optimisation may be in the middle of a step, where the interpreter cannot be taken down.
    os._exit(status)


async def _serve(options: argparse.Namespace, settings: ServiceSettings) -> int:
    def ready(where: dict[str, object]) -> None:
        print(printed(where, as_json=options.json), flush=True)

    return await serve(_loader(options), settings, ready=ready, stop=stopping_on_signals())


def _door(options: argparse.Namespace) -> Door:
    if options.secrets:
        return Door.locked(options.secrets)
    tls = None
    if options.tls_cert:
        tls = Tls(certificate=options.tls_cert, key=options.tls_key, client_ca=options.tls_client_ca)
    return Door(tls=tls, token=token_of(options.token_file) if options.token_file else None)


def _loader(options: argparse.Namespace) -> Callable[[], Engine]:
    def load() -> Engine:
        from sidecar.optimise.engine import load_engine  # takes seconds, while the server already says that it starts

        engine = load_engine(
            domain=options.domain,
            device=options.device,
            compiled=COMPILE[options.compile],
            perceptual=options.perceptual,
        )
        engine.warm_up()
        return engine

    return load


class _Parser(argparse.ArgumentParser):
    """Its help also says which precision this machine gets."""

    def format_help(self) -> str:
        """The usual text with that sentence; only here, because importing PyTorch takes seconds."""
        import torch

        from networks.precision import fast_half

        found, why = fast_half(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        chosen = "bfloat16" if found else "float32"
        self.epilog = f"Convolutions run in {chosen} on this machine: {why}. {EPILOG}"
        return super().format_help()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    found = _Parser(
        prog="python -m sidecar",
        description="Serve the refinement of inversions by gRPC (refine.v1.Refinement, with grpc.health.v1 and server "
        "reflection). Weights come from the build folder ($UNALIGNED_BUILD, by default the project's build), filled by "
        "python -m export fetch --judges. Nothing is written to disk but PyTorch's cache of compiled code.",
        epilog=EPILOG,
    )
    add = found.add_argument
    add("--address", default="127.0.0.1", metavar="IP", help="the address to listen on (default: %(default)s)")
    add("--port", type=_port, default=8003, metavar="N", help="port of gRPC; 0: a free one (default: %(default)s)")
    add(
        "--metrics-port",
        type=_port,
        default=8004,
        metavar="N",
        help="port of /metrics for Prometheus, /live and /ready, plain HTTP; 0: a free one (default: %(default)s)",
    )
    add("--domain", default="ffhq", metavar="NAME", help="which generator (default: %(default)s)")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto is the GPU where there is one")
    add(
        "--compile",
        default="auto",
        choices=list(COMPILE),
        help="compile the step, a minute at the first start and seconds later; auto: where there is a C++ compiler",
    )
    add(
        "--perceptual",
        default="stlpips",
        choices=["stlpips", "lpips"],
        help="network of the loss, on VGG: lpips, the paper's, needs torchvision's VGG16 in PyTorch's hub folder",
    )
    add("--batch", type=_count, default=4, metavar="N", help="jobs that run at a time (default: %(default)s)")
    add("--queue", type=_count_or_none, default=32, metavar="N", help="jobs that may wait (default: %(default)s)")
    add("--slice", type=_count, default=5, metavar="N", help="steps between which jobs join and leave (default: 5)")
    add("--tls-cert", type=Path, metavar="FILE", help="PEM certificate; with --tls-key, serve by TLS")
    add("--tls-key", type=Path, metavar="FILE", help="PEM key of the certificate")
    add("--tls-client-ca", type=Path, metavar="FILE", help="PEM authority that clients' certificates must come from")
    add("--token-file", type=Path, metavar="FILE", help="a token that every request must carry; no reflection then")
    add(
        "--secrets",
        type=Path,
        metavar="DIR",
        help="production: TLS, clients' certificates and the token, by DIR's tls.crt, tls.key, ca.crt and token",
    )
    add("--log-format", default="text", choices=["text", "json"], help="of the log on stderr (default: %(default)s)")
    add("--grace", type=_seconds, default=10.0, metavar="S", help="seconds streams have to end (default: 10)")
    add("--json", action="store_true", help="say where it listens as one line of JSON")
    return found


def _port(text: str) -> int:
    return _whole(text, 0, 65535)


def _count(text: str) -> int:
    return _whole(text, 1, 1024)


def _count_or_none(text: str) -> int:
    return _whole(text, 0, 1024)


def _whole(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from {low} to {high}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return seconds
