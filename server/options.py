"""Options of ``start`` and ``run``: of Triton and of the side-car."""

from __future__ import annotations

import argparse
from pathlib import Path

from assets.paths import project_root
from server.models import DEFAULT


def add_server_options(command: argparse.ArgumentParser, grpc_port: int) -> None:
    """Add the options of Triton; ``grpc_port`` is the default."""
    command.add_argument(
        "--repository",
        type=Path,
        default=project_root() / "model_repository",
        metavar="FOLDER",
        help="the model repository (default: the project's model_repository)",
    )
    command.add_argument(
        "--models",
        type=lambda text: text.split(","),
        default=[DEFAULT],
        metavar="NAME,NAME",
        help="the models to serve, with those that they need: names, all, or default, what invert and edit of the "
        "default cut need (default: default)",
    )
    command.add_argument("--address", default="127.0.0.1", metavar="IP", help="the IPv4 address (default: %(default)s)")
    command.add_argument(
        "--grpc-port",
        type=_port,
        default=grpc_port,
        metavar="N",
        help="port of gRPC; 0: a free one (default: %(default)s)",
    )
    command.add_argument("--http-port", type=_port, metavar="N", help="port of HTTP; 0: a free one (default: no HTTP)")
    command.add_argument(
        "--metrics-port", type=_port, metavar="N", help="port of the metrics; 0: a free one (default: no metrics)"
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=180,
        metavar="S",
        help="seconds within which the server must be ready (default: %(default)s)",
    )
    command.add_argument(
        "--grace",
        type=_seconds,
        default=10,
        metavar="S",
        help="seconds the server has to stop before it is killed (default: %(default)s)",
    )
    command.add_argument(
        "--patience",
        type=_seconds,
        default=30,
        metavar="S",
        help="seconds after which a model that neither answers nor computes ends the server; one that computes has "
        "ten times as long; 0: never (default: %(default)s)",
    )
    command.add_argument(
        "--secrets",
        type=Path,
        metavar="DIR",
        help="serve with the production settings: TLS, client certificates and tokens, no HTTP; DIR holds tls.crt, "
        "tls.key, ca.crt, token and admin-token (default: plain text, open to whoever can connect)",
    )

    command.add_argument(
        "--traces",
        metavar="URL",
        help="send OpenTelemetry traces of traced requests, for example to http://host:4318/v1/traces (default: off)",
    )


def add_sidecar_options(command: argparse.ArgumentParser, port: int, metrics_port: int) -> None:
    """Add the options of the side-car; the ports are the defaults."""
    command.add_argument(
        "--sidecar",
        action="store_true",
        help="also the refinement service; run then sets UNALIGNED_REFINE_URL",
    )
    command.add_argument(
        "--sidecar-port",
        type=_port,
        default=port,
        metavar="N",
        help="its port of gRPC; 0: a free one (default: %(default)s)",
    )
    command.add_argument(
        "--sidecar-metrics-port",
        type=_port,
        default=metrics_port,
        metavar="N",
        help="port of its metrics; 0: a free one (default: %(default)s)",
    )
    command.add_argument(
        "--sidecar-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of python -m sidecar, as one word; repeatable (--sidecar-option=--compile=off)",
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (0-65535)")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return seconds
