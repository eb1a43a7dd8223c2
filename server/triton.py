"""One local Triton, from start to stop.

A `LocalTriton` runs the ``tritonserver`` on PATH with its native backends (as in NVIDIA's container), or else the
assembled one. A guard process (`server.guard`) between it and the launcher stops the server and cleans /dev/shm even if
the launcher is killed.

Exception tree: see `server.errors`; `LocalTriton.start` raises any of it.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

from assets.paths import build_dir
from server import guard, log
from server.arguments import ADMIN_KEY, closed, tracing
from server.assembly import Assembly, assemble
from server.checks import check_path, check_shared_memory
from server.connection import connect, headers
from server.errors import DeadlineError, ExitedError, LaunchError
from server.models import ALL, linked, served
from server.ports import free_port, is_answered, is_free
from server.probe import Probe
from server.process import GuardedProcess
from server.secrets import checked, triton_arguments

_POLL_S = 0.05
_PORT_RACES = 5


class LocalTriton(GuardedProcess):
    """A Triton that serves ``repository``; a context manager, or `start` and `stop`.

    Args:
        repository: the model repository.
        address: the IPv4 address to listen on ("0.0.0.0": all).
        grpc_port, http_port, metrics_port: a port, 0 for a free one, None for none (gRPC is always there).
        timeout: seconds within which the server must be ready, models loaded and warmed up.
        grace: seconds between the request to stop and the kill. A client that holds a stream open keeps the server
            from stopping on its own: close streams first.
        secrets: a folder of `server.secrets`: serve with the production settings; None serves plain text to everyone.
        patience: seconds within which the process of each model must answer a probe or a request, or be computing;
            otherwise the server counts as lost, and stops. None turns this off.
        traces: where OpenTelemetry's traces go (``http://host:4318/v1/traces``): of requests that belong to one.
        models: which of them to serve, as `server.models.served` takes it.
        arguments: more arguments for ``tritonserver``, e.g. ``--model-control-mode=explicit``.
    """

    def __init__(
        self,
        repository: Path | str,
        *,
        address: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int | None = 0,
        metrics_port: int | None = 0,
        timeout: float = 180,
        grace: float = 10,
        secrets: Path | None = None,
        patience: float | None = None,
        traces: str | None = None,
        models: Sequence[str] = (ALL,),
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__("server", grace=grace)
        self.repository = Path(repository).absolute()
        self.address = address
        self.timeout = timeout
        self._wanted = {"grpc": grpc_port, "http": http_port, "metrics": metrics_port}
        self._secrets, self._patience, self._traces = secrets, patience, traces
        self._models, self._extra = tuple(models), tuple(arguments)
        self._ports: dict[str, int] = {}
        self._probe: Probe | None = None
        self._foreign = ""
        self.shm_prefix = ""
        self._token = ""

    @property
    def url(self) -> str:
        """Where gRPC listens, as ``host:port``."""
        return f"{self._host}:{self._ports['grpc']}"

    @property
    def http_url(self) -> str | None:
        """Where HTTP listens, as ``host:port``, or None."""
        return f"{self._host}:{self._ports['http']}" if "http" in self._ports else None

    @property
    def metrics_url(self) -> str | None:
        """The page of Prometheus metrics, or None."""
        return f"http://{self._host}:{self._ports['metrics']}/metrics" if "metrics" in self._ports else None

    @property
    def admin_headers(self) -> dict[str, str]:
        """What a gRPC request for statistics must carry; with ``secrets``, the admin token does the same for more."""
        return {f"triton-grpc-protocol-{ADMIN_KEY}": self._token}

    def start(self) -> Self:
        """Start the server and return once it is ready; on any failure nothing is left running.

        Raises:
            LaunchError: a bad repository, address or port, or the server did not become ready.
            SecretsError: a secret is missing.
            AssemblyError, WheelError: there is no server to start.
        """
        self._require_stopped()
        self._check()
        native = shutil.which("tritonserver")
        if not native:
            check_shared_memory()
            for path in (self.repository, build_dir(), Path(sys.executable)):
                check_path(path)
        program = Assembly(Path(native), (), dict(os.environ)) if native else assemble()
        deadline = time.monotonic() + self.timeout
        for attempt in range(_PORT_RACES):
            try:
                self._launch(program)
                self._wait_ready(deadline)
                guard.close_to_others(self.shm_prefix)
            except ExitedError:
                self.stop()
                raced = 0 in self._wanted.values() and log.says_port_taken(self.log_path)
                if not raced or attempt == _PORT_RACES - 1:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                self._start_probe()
                return self
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Stop the server: SIGTERM, and SIGKILL after the grace; its entries of /dev/shm are gone afterwards.

        Does nothing if it is stopped.
        """
        if self._guard is None:
            return
        if self._probe:
            self._probe.stop()
        super().stop()
        guard.sweep(self.shm_prefix)

    @property
    def _host(self) -> str:
        return "127.0.0.1" if self.address == "0.0.0.0" else self.address

    def _check(self) -> None:
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError as error:
            raise LaunchError(f"`{self.address}` is not an IPv4 address") from error
        if not self.repository.is_dir():
            raise LaunchError(f"no model repository at `{self.repository}`")
        if not any(self.repository.glob("*/config.pbtxt")):
            raise LaunchError(f"no model in `{self.repository}`: build the repository with `make invert`")
        served(self.repository, self._models)
        if self._secrets:
            checked(self._secrets)
            if self._wanted["http"] is not None:
                raise LaunchError("cannot combine `--http-port` and `--secrets`: Triton's HTTP has no TLS")
        for name, port in self._wanted.items():
            if port is not None and not 0 <= port <= 65535:
                raise LaunchError(f"{name} port {port} is out of range: expected 0 to 65535")
            if port and not is_free(self.address, port):
                raise LaunchError(f"cannot listen on {name} port {port} of {self.address}: it is in use or not allowed")

    def _launch(self, program: Assembly) -> None:
        self.id = f"unaligned-{uuid.uuid4().hex[:12]}"
        # The id is public, so the prefix of the entries of /dev/shm must not follow from it.
        self.shm_prefix = f"unaligned-shm-{secrets.token_hex(16)}-"
        self._token = secrets.token_urlsafe(32)
        taken = {port for port in self._wanted.values() if port}
        self._ports = {}
        for name, port in self._wanted.items():
            if port is not None:
                self._ports[name] = port or free_port(self.address, taken)
        # Its own folder, because the stubs find Python modules in their working directory first.
        folder = build_dir() / "run"
        folder.mkdir(exist_ok=True)
        command = [str(program.executable), *program.arguments, *self._arguments()]
        self._spawn(command, prefix=self.shm_prefix, environment=program.environment, folder=folder)

    def _arguments(self) -> list[str]:
        arguments = [
            f"--id={self.id}",
            f"--model-repository={self._served()}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            f"--exit-timeout-secs={max(1, int(self.grace))}",
        ]
        for name in ("grpc", "http", "metrics"):
            arguments.append(f"--allow-{name}={str(name in self._ports).lower()}")
            if name in self._ports:
                arguments += [f"--{name}-address={self.address}", f"--{name}-port={self._ports[name]}"]
        doors = triton_arguments(self._secrets) if self._secrets else closed(self._token)
        return [*arguments, *doors, *tracing(self._traces), *self._extra]

    def _served(self) -> Path:
        """The repository of the models that are wanted."""
        names = served(self.repository, self._models)
        return self.repository if names is None else linked(self.repository, names, build_dir() / "run")

    def _wait_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            assert self._guard is not None
            status = self._guard.poll()
            if status is not None:
                raise ExitedError(self._why_exited(status), log.tail(self.log_path))
            if is_answered(self._host, self._ports["grpc"]) and self._is_ready():
                return
            time.sleep(_POLL_S)
        other = f" (another server, `{self._foreign}`, answers on {self.url})" if self._foreign else ""
        raise DeadlineError(
            f"Triton was not ready after {self.timeout:g} s{other}; see {self.log_path}", log.tail(self.log_path)
        )

    def _is_ready(self) -> bool:
        """Whether the server that answers is this one, and ready."""
        from tritonclient.utils import InferenceServerException

        client, admitted = connect(self.url, self._secrets), headers(self._secrets)
        try:
            name = client.get_server_metadata(headers=admitted, client_timeout=2).name
            self._foreign = "" if name == self.id else name
            return name == self.id and bool(client.is_server_ready(client_timeout=2))
        except InferenceServerException:
            return False
        finally:
            client.close()

    def _start_probe(self) -> None:
        if self._patience:
            self._probe = Probe(
                self.pid,
                partial(connect, self.url, self._secrets),
                headers=headers(self._secrets),
                admin=headers(self._secrets, "admin-token") or self.admin_headers,
                patience=self._patience,
                lost=self._end,
            )
            self._probe.start()

    def _end(self, instance: str) -> None:
        """Note in the log that an instance is stuck, and let the guard stop the server."""
        what = f"process of {instance}" if instance else "server"
        with self.log_path.open("a") as lines:
            lines.write(f"probe: the {what} hangs; the server is stopped\n")
        if (running := self._guard) and running.stdin:
            running.stdin.close()

    def _why_exited(self, status: int) -> str:
        failed = log.failed_models(self.log_path)
        if failed:
            reasons = "; ".join(f"`{name}`: {reason}" for name, reason in failed.items())
            return f"Triton could not load {reasons}; see {self.log_path}"
        how = f"signal {signal.Signals(status - 128).name}" if status > 128 else f"exit status {status}"
        return f"Triton ended before it was ready ({how}); see {self.log_path}"
