"""Decoding in another process: it has a time limit, and a photo that crashes it fails alone.

Exceptions::

    DecodingError      the photo could not be decoded
    ├── Refused        the decoder raised an exception; ``kind`` is its name
    ├── TooSlow        it took longer than the limit
    │   └── TooCostly  it computed for longer than its decoder allows: see `photos.child.allow`
    └── Crashed        the process ended
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from photos.child import read_head, write

T = TypeVar("T")
# Time for a process to start: it has to load Python and Pillow.
_START_S: Final = 60.0
# How often the time limit looks at the clock.
_TICK_S: Final = 0.5
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


class TooCostly(TooSlow):
    """Decoding took longer than a photo of its size may compute."""


class Crashed(DecodingError):
    """The process that decoded ended."""


class Rest:
    """What is left of an answer's body: at most ``left`` bytes."""

    def __init__(self, source: BinaryIO, left: int) -> None:
        self._source, self.left = source, left

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes.

        Raises:
            Crashed: there are fewer.
        """
        data = self._source.read(count) if count <= self.left else b""
        if len(data) < count:
            raise Crashed("the process that decodes photos ended")
        self.left -= count
        return data


# Reads a body; what is said of it may be as false as the body.
Take = Callable[[dict[str, Any], Rest], T]


class _Process:
    def __init__(self, target: str) -> None:
        root = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, root, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._limited(_START_S, lambda: self._read(_nothing))

    def ask(self, said: dict[str, Any], body: bytes, seconds: float, take: Take[T]) -> T:
        def talk() -> T:
            assert self._process.stdin is not None
            write(self._process.stdin, said, body)  # type: ignore[arg-type]
            return self._read(take)

        return self._limited(seconds, talk)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.kill()
        self._process.wait()

    def _read(self, take: Take[T]) -> T:
        assert self._process.stdout is not None
        if (head := read_head(self._process.stdout)) is None:  # type: ignore[arg-type]
            raise Crashed("the process that decodes photos ended")
        said, length = head
        rest = Rest(self._process.stdout, length)  # type: ignore[arg-type]
        found = take(said, rest)
        if rest.left:
            raise Crashed("the process that decodes photos said more than it should")
        return found

    def _limited(self, seconds: float, talk: Callable[[], T]) -> T:
        ended, late = threading.Event(), threading.Event()

        def watch() -> None:
            left = seconds
            while left > 0:
                began = time.monotonic()
                if ended.wait(min(left, _TICK_S)):
                    return
                # If this process was stopped for a while, that is not the photo's fault.
                left -= min(time.monotonic() - began, 2 * _TICK_S)
            late.set()
            self._process.kill()

        threading.Thread(target=watch, name="time limit of decoding", daemon=True).start()
        try:
            return talk()
        except (OSError, Crashed) as problem:
            self.close()
            if late.is_set():
                raise TooSlow(f"decoding took longer than {seconds:g} s") from problem
            if self._process.returncode == -signal.SIGXCPU:
                raise TooCostly("decoding took longer than a photo of its size may compute") from problem
            raise Crashed("the process that decodes photos ended") from problem
        except BaseException:
            # Interrupted between two messages: no one could tell where the next one begins.
            self.close()
            raise
        finally:
            ended.set()


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

    def __call__(self, said: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Decode one photo.

        Raises:
            Refused, TooSlow, Crashed: see the module.
        """
        return self.taken(said, body, _whole)

    def taken(self, said: dict[str, Any], body: bytes, take: Take[T]) -> T:
        """Decode one photo, whose pixels ``take`` reads.

        Raises:
            Refused, TooSlow, Crashed: see the module.
        """

        def checked(answer: dict[str, Any], rest: Rest) -> T | Refused:
            # An exception here would end the process.
            return Refused(answer["kind"], answer["sentence"]) if "kind" in answer else take(answer, rest)

        with self._room:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            process = process or _Process(self._target)
            found = process.ask(said, body, self.seconds, checked)
            with self._lock:
                self._idle.append(process)
        if isinstance(found, Refused):
            raise found
        return found

    def close(self) -> None:
        """End the processes that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()


def _whole(said: dict[str, Any], rest: Rest) -> tuple[dict[str, Any], bytes]:
    return said, rest.read(rest.left)


def _nothing(_said: dict[str, Any], _rest: Rest) -> None:
    """Take the message of a process that has started."""
