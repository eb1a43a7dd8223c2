"""A side-car that says nothing: it is alive as long as it sends events, if only those that mean nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from client.errors import ServerUnavailable

# A side-car gives a sign of life every few seconds once it has the request.
_SILENCE_S: Final = 30.0


class SidecarSilent(ServerUnavailable):
    """It said nothing for so many ``seconds``."""

    def __init__(self, message: str, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.seconds = seconds

    @classmethod
    def at(cls, url: str, seconds: float) -> SidecarSilent:
        """Return the error of the side-car at an address."""
        return cls(f"the side-car at {url} said nothing for {seconds:g} seconds", seconds)


def _limits(patience: float) -> Iterator[float]:
    # Until the first event, the request is on its way.
    yield patience
    while True:
        yield min(patience, _SILENCE_S)


def heard(call: Any, url: str, patience: float) -> Iterator[Any]:
    """Yield the events of a call.

    Raises:
        SidecarSilent: none came for as long as ``patience``, or 30 seconds after the first one.
    """
    events = iter(call)
    for seconds in _limits(patience):
        silent = threading.Event()
        timer = threading.Timer(seconds, lambda said=silent: (said.set(), call.cancel()))
        timer.daemon = True
        timer.start()
        try:
            event = next(events)
        except StopIteration:
            return
        except BaseException as problem:
            if silent.is_set() and isinstance(problem, Exception):
                raise SidecarSilent.at(url, seconds) from problem
            raise
        finally:
            timer.cancel()
        yield event


async def heard_async(call: Any, url: str, patience: float) -> AsyncIterator[Any]:
    """``heard`` for an asynchronous call."""
    events = aiter(call)
    for seconds in _limits(patience):
        try:
            async with asyncio.timeout(seconds):
                event = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError as problem:
            raise SidecarSilent.at(url, seconds) from problem
        yield event
