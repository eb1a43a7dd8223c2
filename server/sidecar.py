"""One local side-car, from start to stop: ``python -m sidecar`` behind the same guard as Triton.

Exception tree: see `server.errors`; `LocalSidecar.start` raises `LaunchError` and its kinds.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from server import log
from server.errors import DeadlineError, ExitedError
from server.process import GuardedProcess

_POLL_S = 0.05


class LocalSidecar(GuardedProcess):
    """A side-car on this machine; a context manager, or `start` and `stop`.

    Args:
        address: the address to listen on.
        port, metrics_port: 0 for a free one.
        timeout: seconds within which it must be ready: networks loaded, and the step compiled where it is.
        grace: seconds between the request to stop and the kill.
        secrets: a folder of `server.secrets`; None serves plain text to everyone.
        arguments: more options of ``python -m sidecar``.
        program: the command to run; ``python -m sidecar`` by default.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        metrics_port: int = 0,
        timeout: float = 600,
        grace: float = 10,
        secrets: Path | None = None,
        arguments: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "sidecar"),
    ) -> None:
        super().__init__("side-car", grace=grace)
        self.timeout = timeout
        where = ["--address", address, "--port", str(port), "--metrics-port", str(metrics_port)]
        door = ["--secrets", str(secrets)] if secrets else []
        # It drains a little sooner than it would be killed.
        self._command = [*program, "--json", *where, "--grace", str(max(0.0, grace - 2)), *door, *arguments]
        self._where: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where gRPC listens, as ``host:port``."""
        return self._where["grpc"]

    @property
    def metrics_url(self) -> str:
        """The page of Prometheus metrics."""
        return self._where["metrics"]

    def launch(self) -> Self:
        """Start the process and return at once; `ready` waits for it.

        Raises:
            LaunchError: it has been started already, or cannot be.
        """
        self._require_stopped()
        self.id = f"unaligned-sidecar-{uuid.uuid4().hex[:12]}"
        self._spawn(self._command, prefix=f"{self.id}-")
        return self

    def ready(self) -> Self:
        """Return once it answers; on any failure it is stopped.

        Raises:
            ExitedError: it ended before.
            DeadlineError: it did not answer in time.
        """
        try:
            self._where = self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self) -> Self:
        """`launch`, then `ready`."""
        return self.launch().ready()

    def _wait_ready(self) -> dict[str, str]:
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            # Asked first, so that whatever it wrote before it ended is read.
            running = self.is_running
            if where := self._said():
                return where
            if not running:
                sentence = f"the side-car ended before it was ready: {self._reason()}"
                raise ExitedError(sentence, log.tail(self.log_path))
            time.sleep(_POLL_S)
        sentence = f"the side-car was not ready after {self.timeout:g} s; see {self.log_path}"
        raise DeadlineError(sentence, log.tail(self.log_path))

    def _said(self) -> dict[str, str]:
        """The addresses of its line that says where it listens; {} before."""
        for line in self._lines():
            if line.startswith('{"grpc"'):
                found = json.loads(line)
                return {name: str(found[name]) for name in ("grpc", "metrics")}
        return {}

    def _reason(self) -> str:
        errors = [line.removeprefix("error: ") for line in self._lines() if line.startswith("error: ")]
        return errors[-1] if errors else f"see {self.log_path}"

    def _lines(self) -> list[str]:
        # A line that is still being written has no end yet.
        whole, _, _ = self.log_path.read_text(errors="replace").rpartition("\n")
        return whole.splitlines()
