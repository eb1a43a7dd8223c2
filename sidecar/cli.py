"""The command line: ``python -m sidecar``.

Exit status: 1 if the side-car cannot start, 2 for a usage error, 130 and 143 after SIGINT and SIGTERM.
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

from assets.allocator import give_back, keep_freed
from assets.numbers import port, seconds, whole
from sidecar.job import Engine
from sidecar.service import log
from sidecar.service.door import Door, ServeError, Tls, token_of
from sidecar.service.server import ServiceSettings, printed, serve, stopping_on_signals

EPILOG = (
    "On SIGTERM or SIGINT, running jobs send a checkpoint and end with UNAVAILABLE. "
    "Exit status: 1 if the side-car cannot start, 2 for a usage error, 130 and 143 after SIGINT and SIGTERM."
)
COMPILE = {"auto": None, "on": True, "off": False}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Serve until a signal ends it."""
    options = parser().parse_args(argv)
    if bool(options.tls_cert) != bool(options.tls_key) or (options.tls_client_ca and not options.tls_cert):
        parser().error("--tls-cert and --tls-key must be given together, and --tls-client-ca needs both")
    if options.secrets and (options.tls_cert or options.token_file):
        parser().error("--secrets cannot be combined with --tls-cert, --tls-key, --tls-client-ca or --token-file")
    log.configure(options.log_format)
    keep_freed()
    # sidecar.service.photo handles what Pillow warns about; keep warnings out of the log.
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
    # Threads of the optimisation may be inside a step, and the interpreter cannot shut down then.
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
        give_back()
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
        description="Serve the refinement of inversions over gRPC (refine.v1.Refinement, grpc.health.v1 and server "
        "reflection). Weights are read from the build folder ($UNALIGNED_BUILD, default: the project's build), which "
        "`python -m export fetch --judges` fills. Only compiled code is written to disk, to its folder "
        "`compiled`, or to $TORCHINDUCTOR_CACHE_DIR.",
        epilog=EPILOG,
    )
    add = found.add_argument
    add("--address", default="127.0.0.1", metavar="IP", help="the address to listen on (default: %(default)s)")
    add("--port", type=port, default=8003, metavar="N", help="gRPC port; 0 picks a free one (default: %(default)s)")
    add(
        "--metrics-port",
        type=port,
        default=8004,
        metavar="N",
        help="HTTP port of /metrics (Prometheus), /live and /ready; 0 picks a free one (default: %(default)s)",
    )
    add("--domain", default="ffhq", metavar="NAME", help="generator to serve (default: %(default)s)")
    add(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="where to run; auto uses a GPU if there is one (default: %(default)s)",
    )
    add(
        "--compile",
        default="auto",
        choices=list(COMPILE),
        help="compile the step, which takes minutes on first start; auto compiles where convolutions run in bfloat16 "
        "and there is a C++ compiler (default: %(default)s)",
    )
    add(
        "--perceptual",
        default="stlpips",
        choices=["stlpips", "lpips"],
        help="perceptual network of the loss; lpips, as in the paper, needs torchvision's VGG16 in PyTorch's hub "
        "folder (default: %(default)s)",
    )
    add("--batch", type=whole(1, 1024), default=4, metavar="N", help="jobs that run at once (default: %(default)s)")
    add("--queue", type=whole(0, 1024), default=32, metavar="N", help="jobs that may wait (default: %(default)s)")
    add(
        "--slice",
        type=whole(1, 1024),
        default=5,
        metavar="N",
        help="steps after which jobs join and leave (default: %(default)s)",
    )
    add("--tls-cert", type=Path, metavar="FILE", help="PEM certificate; serve over TLS, with --tls-key")
    add("--tls-key", type=Path, metavar="FILE", help="PEM private key of the certificate")
    add(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="PEM certificate authority; clients must present a certificate from it",
    )
    add(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with a token that every request must carry; turns reflection off",
    )
    add(
        "--secrets",
        type=Path,
        metavar="DIR",
        help="folder with tls.crt, tls.key, ca.crt and token: TLS, client certificates and a token",
    )
    add(
        "--log-format",
        default="text",
        choices=["text", "json"],
        help="format of the log on stderr (default: %(default)s)",
    )
    add(
        "--grace",
        type=seconds,
        default=10.0,
        metavar="S",
        help="seconds that streams get to finish on shutdown (default: %(default)g)",
    )
    add("--json", action="store_true", help="print the addresses as one line of JSON")
    return found
