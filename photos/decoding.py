"""Decoding in another process: it has a time limit, and a photo that crashes it fails alone.

Exceptions::

    DecodingError      the photo could not be decoded
    ├── Refused        the decoder raised an exception; ``kind`` is its name
    ├── TooSlow        it took longer than the limit
    └── Crashed        the process ended
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from photos.child import read, write

Message = tuple[dict[str, Any], bytes]
# Of a process that is started: Python and Pillow have to be read.
_START_S: Final = 60.0
_CODE: Final = "import sys; sys.path.append(sys.argv[1]); from photos import child; child.main(sys.argv[2])"


class DecodingError(Exception):
    """The photo could not be decoded."""


class Refused(DecodingError):
    """The decoder raised an exception of the class named ``kind``; the message is its own."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class TooSlow(DecodingError):
    """Decoding took longer than the limit."""


class Crashed(DecodingError):
    """The process that decoded ended."""


class _Process:
    def __init__(self, target: str) -> None:
        root = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, root, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._limited(_START_S, self._read)

    def ask(self, said: dict[str, Any], body: bytes, seconds: float) -> Message:
        def talk() -> Message:
            assert self._process.stdin is not None
            write(self._process.stdin, said, body)  # type: ignore[arg-type]
            return self._read()

        return self._limited(seconds, talk)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.kill()
        self._process.wait()

    def _read(self) -> Message:
        assert self._process.stdout is not None
        if (found := read(self._process.stdout)) is None:  # type: ignore[arg-type]
            raise Crashed("the process that decodes photos ended")
        return found

    def _limited(self, seconds: float, talk: Callable[[], Message]) -> Message:
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            return talk()
        except (OSError, Crashed) as problem:
            self.close()
            if late.is_set():
                raise TooSlow(f"decoding took longer than {seconds:g} s") from problem
            raise Crashed("the process that decodes photos ended") from problem
        except BaseException:
            # Interrupted between two messages: no one could tell where the next one begins.
            self.close()
            raise
        finally:
            timer.cancel()


class Decoding:
    """Decodes with a function of another process; the processes are started when they are needed, and kept.

    Args:
        target: the function, ``module:name``; see `photos.child.Decode`.
        seconds: that one photo may take.
        processes: how many at most; the number of processors by default, and at least two. Further callers wait.
    """

    def __init__(self, target: str, *, seconds: float, processes: int | None = None) -> None:
        self._target, self.seconds = target, seconds
        self._room = threading.BoundedSemaphore(processes or max(2, min(8, os.cpu_count() or 1)))
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        atexit.register(self.close)

    def __call__(self, said: dict[str, Any], body: bytes) -> Message:
        """Decode one photo.

        Raises:
            Refused, TooSlow, Crashed: see the module.
        """
        with self._room:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            process = process or _Process(self._target)
            answer, pixels = process.ask(said, body, self.seconds)
            with self._lock:
                self._idle.append(process)
        if "kind" in answer:
            raise Refused(answer["kind"], answer["sentence"])
        return answer, pixels

    def close(self) -> None:
        """End the processes that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()
