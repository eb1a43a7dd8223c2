"""The command line: ``python -m server start | run | assemble | secrets``.

Exit status: 0 success (for ``start``: stopped by Ctrl-C); 1 an error, in one sentence (with the end of the log of a
server that did not become ready); 2 a wrong command line; 130 and 143 after SIGINT and SIGTERM. ``run`` exits with the
status of its command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from assets.errors import AssetError
from server import log
from server.assembly import assemble
from server.errors import LauncherError
from server.options import add_server_options, add_sidecar_options
from server.secrets import client_environment, make
from server.sidecar import LocalSidecar
from server.triton import LocalTriton

DEFAULT_GRPC_PORT = 8001
SIDECAR_PORT = 8003
SIDECAR_METRICS_PORT = 8004
_LOST = -1
_RESTARTS = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if options.command == "start":
            return _start(options)
        if options.command == "run":
            return _run(options)
        if options.command == "secrets":
            make(options.folder, options.name)
            print(f"Secrets of a server and of its clients are in {options.folder}; they expire in a year.")
            return 0
        print(assemble().executable)
    except (AssetError, LauncherError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _start(options: argparse.Namespace) -> int:
    status = _start_once(options)
    for _ in range(_RESTARTS if options.restart else 0):
        if status != _LOST:
            break
        print("The servers are started again.", file=sys.stderr, flush=True)
        status = _start_once(options)
    return 1 if status == _LOST else status


def _start_once(options: argparse.Namespace) -> int:
    """Serve until the end; return `_LOST` if a server was lost."""
    with _servers(options) as (triton, sidecar):
        # The ports stay the same: clients come back to them.
        options.grpc_port = int(triton.url.rpartition(":")[2])
        if sidecar:
            options.sidecar_port = int(sidecar.url.rpartition(":")[2])
        where: dict[str, object] = {
            "grpc": triton.url,
            "http": triton.http_url,
            "metrics": triton.metrics_url,
            "id": triton.id,
            "pid": triton.pid,
            "log": str(triton.log_path),
        }
        if sidecar:
            beside = {"grpc": sidecar.url, "metrics": sidecar.metrics_url, "pid": sidecar.pid}
            where["sidecar"] = {**beside, "log": str(sidecar.log_path)}
        try:
            if options.json:
                print(json.dumps(where), flush=True)
            else:
                listed = ", ".join(f"{name} {where[name]}" for name in ("grpc", "http", "metrics") if where[name])
                print(
                    f"Triton serves {triton.repository} on {listed} (log: {triton.log_path}); Ctrl-C stops it.",
                    flush=True,
                )
                if sidecar:
                    listed = f"grpc {sidecar.url}, metrics {sidecar.metrics_url}"
                    print(f"The side-car refines on {listed} (log: {sidecar.log_path}).", flush=True)
            while triton.is_running and (sidecar is None or sidecar.is_running) and not _terminated:
                time.sleep(0.1)
            if _terminated:
                return 143
            name, ended = ("The side-car", sidecar) if sidecar and not sidecar.is_running else ("Triton", triton)
            status = ended.wait()
        except KeyboardInterrupt:
            return 0
        lost = log.lost_part(ended.log_path)
        how = f"was stopped because {lost}" if lost else f"ended with status {status}"
        print(f"error: {name} {how}; see {ended.log_path}", file=sys.stderr)
    return _LOST


def _run(options: argparse.Namespace) -> int:
    command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not command:
        print("error: no command to run: write it after `--`", file=sys.stderr)
        return 2
    program = shutil.which(command[0])
    if program is None:
        print(f"error: no command `{command[0]}` on PATH", file=sys.stderr)
        return 127
    with _servers(options) as (triton, sidecar):
        environment = {**os.environ, "UNALIGNED_URL": triton.url}
        if sidecar:
            environment["UNALIGNED_REFINE_URL"] = sidecar.url
        if options.secrets:
            environment |= client_environment(options.secrets)
        child = subprocess.Popen([command[0], *command[1:]], executable=program, env=environment)
        status = _wait(child)
        for name, server in (("Triton", triton), ("The side-car", sidecar)):
            if server and not server.is_running:
                lost = log.lost_part(server.log_path)
                why = f" because {lost}" if lost else ""
                print(f"error: {name} ended while the command ran{why}; see {server.log_path}", file=sys.stderr)
                return status or 1
    return status


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the command; a Ctrl-C reaches it directly, a SIGTERM is passed on."""
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            continue
        except SystemExit:
            child.terminate()
            child.wait()
            raise
        return status if status >= 0 else 128 - status


@contextmanager
def _servers(options: argparse.Namespace) -> Iterator[tuple[LocalTriton, LocalSidecar | None]]:
    """Triton, and the side-car if it is wanted; both start at once."""
    triton = LocalTriton(
        options.repository,
        address=options.address,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        metrics_port=options.metrics_port,
        timeout=options.timeout,
        grace=options.grace,
        secrets=options.secrets,
        patience=options.patience,
        traces=options.traces,
        models=options.models,
    )
    if options.traces:
        # Read by the side-car and by the command of `run`.
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = options.traces
    sidecar = None
    if options.sidecar:
        sidecar = LocalSidecar(
            address=options.address,
            port=options.sidecar_port,
            metrics_port=options.sidecar_metrics_port,
            grace=options.grace,
            secrets=options.secrets,
            arguments=options.sidecar_option,
        )
    with ExitStack() as stack:
        if sidecar:
            stack.callback(sidecar.stop)
            sidecar.launch()
        stack.enter_context(triton)
        yield triton, sidecar.ready() if sidecar else None


# Beside the exception, because Python drops an exception raised inside a destructor.
_terminated: list[int] = []


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    _terminated.append(number)
    sys.exit(143)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serve a model repository with a local Triton: the tritonserver on PATH with its native backends, "
        "or else the server of the pinned PyPI wheel, assembled under build/triton.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "start",
        help="keep a server up until Ctrl-C",
        description="Start a server, print its addresses once every model is loaded and warmed up, and keep it up "
        "until Ctrl-C or SIGTERM. Exits with 1 if the server does not start or ends, or a process of it dies or hangs.",
    )
    start.add_argument("--json", action="store_true", help="print the addresses as one line of JSON")
    start.add_argument(
        "--restart",
        action="store_true",
        help="start both servers again, on the same ports, when one ends or loses a process; 100 times at most",
    )
    run = commands.add_parser(
        "run",
        help="run a command with a server up",
        description="Start a server, run COMMAND with the environment variable UNALIGNED_URL set to its gRPC address, "
        "stop the server, and exit with COMMAND's status (128 + n for signal n).",
    )
    for command, port in ((start, DEFAULT_GRPC_PORT), (run, 0)):
        add_server_options(command, port)
    add_sidecar_options(start, SIDECAR_PORT, SIDECAR_METRICS_PORT)
    add_sidecar_options(run, 0, 0)
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command and its arguments")
    secrets = commands.add_parser(
        "secrets",
        help="make certificates and tokens for a development set-up",
        description="Make an authority, certificates of a server and of its clients, and tokens: FOLDER/server for "
        "--secrets, here and of python -m sidecar, and FOLDER/client with a client.toml for client --config.",
    )
    secrets.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder")
    secrets.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="another name or address of the server; repeatable"
    )
    commands.add_parser(
        "assemble",
        help="fetch and lay out the server, without starting it",
        description="Fetch the pinned wheel (by its hash), lay the server out under build/triton and print the path "
        "of its executable. Does nothing if it is up to date.",
    )
    return parser
