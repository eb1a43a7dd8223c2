"""Options of ``start`` and ``run``: of Triton and of the side-car."""

from __future__ import annotations

import argparse
from pathlib import Path

from assets.numbers import port, seconds
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
        type=port,
        default=grpc_port,
        metavar="N",
        help="gRPC port; 0 picks a free one (default: %(default)s)",
    )
    command.add_argument("--http-port", type=port, metavar="N", help="HTTP port; 0 picks a free one (default: no HTTP)")
    command.add_argument(
        "--metrics-port", type=port, metavar="N", help="metrics port; 0 picks a free one (default: no metrics)"
    )
    command.add_argument(
        "--timeout",
        type=seconds,
        default=180,
        metavar="S",
        help="seconds within which the server must be ready (default: %(default)s)",
    )
    command.add_argument(
        "--grace",
        type=seconds,
        default=10,
        metavar="S",
        help="seconds the server has to stop before it is killed (default: %(default)s)",
    )
    command.add_argument(
        "--patience",
        type=seconds,
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


def add_sidecar_options(command: argparse.ArgumentParser, grpc_port: int, metrics_port: int) -> None:
    """Add the options of the side-car; the ports are the defaults."""
    command.add_argument(
        "--sidecar", action="store_true", help="also the refinement service; run then sets UNALIGNED_REFINE_URL"
    )
    command.add_argument(
        "--sidecar-port",
        type=port,
        default=grpc_port,
        metavar="N",
        help="gRPC port of the side-car; 0 picks a free one (default: %(default)s)",
    )
    command.add_argument(
        "--sidecar-metrics-port",
        type=port,
        default=metrics_port,
        metavar="N",
        help="its metrics port; 0 picks a free one (default: %(default)s)",
    )
    command.add_argument(
        "--sidecar-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option of python -m sidecar, as one word; repeatable (--sidecar-option=--compile=off)",
    )
