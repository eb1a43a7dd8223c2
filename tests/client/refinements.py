"""Refinements over pretended servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from client import (
    AsyncInverter,
    Inversion,
    Inverter,
    Refined,
    RefineOptions,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    Timeout,
)
from tests.client.fakes import FakeAsyncTransport, FakeTransport
from tests.client.sidecar_fakes import FakeAsyncRefineTransport, simulated


def events_of(*arguments, transport, asynchronous=False, generator=None, events=None, **timeouts):
    """All events of a refinement; those before an error are left in ``events``."""
    found = [] if events is None else events
    triton = FakeTransport(**({} if generator is None else {"generator": generator}))
    timeout = Timeout(**timeouts)
    if not asynchronous:
        with Inverter(transport=triton, refine_transport=transport, timeout=timeout) as inverter:
            found.extend(iterated(inverter.refine(*arguments), found))
        return found

    async def go():
        given = {"transport": FakeAsyncTransport(triton), "refine_transport": FakeAsyncRefineTransport(transport)}
        async with AsyncInverter(timeout=timeout, **given) as inverter:
            async for event in inverter.refine(*arguments):
                found.append(event)

    asyncio.run(go())
    return found


def iterated(events, found):
    for event in events:
        found.append(event)
    return ()


def failing(problem: ServerError, *, after: int = 0):
    """A side-car that takes so many steps and fails."""

    def script(request):
        def hook(step):
            if step >= after:
                raise problem

        if after == 0:
            raise problem
        yield from simulated(request, hook)

    return script


def changed(kind, **changes):
    """A side-car whose messages of a kind are changed."""

    def script(request):
        for message in simulated(request):
            yield replace(message, **changes) if isinstance(message, kind) else message

    return script


GONE = ServerUnavailable("no side-car answers at fake:8003, or it went away")


BUSY = ServerBusy("the side-car at fake:8003 is busy: its queue is full")


TEN = RefineOptions(checkpoint_every=10)


def result_of(events) -> Inversion:
    assert isinstance(events[-1], Refined)
    return events[-1].inversion
