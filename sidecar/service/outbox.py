"""The events waiting to be sent to one client."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from protocol import refine_pb2 as pb


class Outbox:
    """At most one event of each kind, the newest, between the worker thread and a client's stream.

    A client that reads slowly misses progress, never a result, and costs the memory of one event of each kind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._events: dict[str, pb.RefineEvent] = {}
        self._ready = asyncio.Event()
        self.ended = asyncio.Event()

    def put(self, event: pb.RefineEvent) -> None:
        """Add an event in place of an older one of its kind; from any thread."""
        kind = event.WhichOneof("event") or ""
        with self._lock:
            self._events.pop(kind, None)
            self._events[kind] = event
        self.wake()

    def wake(self) -> None:
        """Let :meth:`take` return; from any thread, also after the event loop's end."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ready.set)

    def end(self) -> None:
        """Say that nothing comes any more; from any thread, also after the event loop's end."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.ended.set)
        self.wake()

    async def take(self, *, seconds: float | None = None) -> list[pb.RefineEvent]:
        """The waiting events, oldest first, once there is one or the outbox was woken.

        After so many ``seconds``, a sign of life: an event of no kind.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return self.rest() or [pb.RefineEvent()]
        self._ready.clear()
        return self.rest()

    def rest(self) -> list[pb.RefineEvent]:
        """The waiting events, oldest first."""
        with self._lock:
            events = list(self._events.values())
            self._events.clear()
        return events
