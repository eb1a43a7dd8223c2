"""A server process behind a guard (`server.guard`), from start to stop: what Triton and the side-car share."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from assets.paths import build_dir
from server import guard, log
from server.errors import LaunchError


class GuardedProcess(ABC):
    """A process that stops with its launcher; a context manager, or `start` and `stop`.

    Args:
        name: what messages call it.
        grace: seconds between the request to stop and the kill.
    """

    def __init__(self, name: str, *, grace: float) -> None:
        self.grace = grace
        self.id, self.pid = "", 0
        self._name = name
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        """Its log, kept after it has stopped."""
        return build_dir() / "logs" / f"{self.id}.log"

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._guard is not None and self._guard.poll() is None

    @abstractmethod
    def start(self) -> Self:
        """Start it and return once it is ready; on any failure nothing is left running."""

    def stop(self) -> None:
        """Stop it with SIGTERM, and after the grace with SIGKILL; does nothing if it is stopped."""
        if self._guard is None:
            return
        running, self._guard = self._guard, None
        for pipe in (running.stdin, running.stdout):
            if pipe:
                pipe.close()
        try:
            status = running.wait(self.grace + 10)
        except subprocess.TimeoutExpired:
            running.kill()
            status = running.wait()
        if status < 0 and self.pid:
            # The guard was killed before it could clean up.
            guard.kill_group(self.pid)

    def wait(self) -> int:
        """Block until it ends, and return its exit status (128 + n for signal n)."""
        if self._guard is None:
            raise LaunchError(f"this {self._name} is not running")
        return self._guard.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _require_stopped(self) -> None:
        if self._guard is not None:
            raise LaunchError(f"this {self._name} is already started")

    def _spawn(
        self,
        command: Sequence[str],
        *,
        prefix: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start a command behind a guard.

        Args:
            command: the program and its arguments.
            prefix: prefix of the entries of /dev/shm that the guard removes.
            environment: None for this process's.
            folder: the working directory; None for this process's.

        Raises:
            LaunchError: it cannot be started.
        """
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        log.prune(self.log_path.parent)
        script = [sys.executable, "-I", "-S", guard.__file__, prefix, str(self.grace), str(self.log_path), "--"]
        with self.log_path.open("ab") as errors:
            self._guard = subprocess.Popen(
                [*script, *command],
                env=environment,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            self.stop()
            raise LaunchError(f"cannot start `{command[0]}`", log.tail(self.log_path))
        self.pid = int(line)
