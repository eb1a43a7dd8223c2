"""Several faces of a photo, refined at a time."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, closing

import numpy as np
import pytest

from client import (
    AccessDenied,
    AsyncInverter,
    Checkpoint,
    Failed,
    Inversion,
    Inverter,
    Progress,
    RefinementDiverged,
    RefineOptions,
)
from client.limits import FACES_AT_A_TIME
from tests.client.fakes import FakeAsyncTransport, FakeTransport
from tests.client.inversions import made, target
from tests.client.refinements import TEN, events_of, failing, result_of
from tests.client.sidecar_fakes import FakeAsyncRefineTransport, FakeRefineTransport, FakeSidecar, refining, simulated


def faces(count: int) -> list[Inversion]:
    """Inversions that begin at different places."""
    starts = (np.full((512, 16, 16), 0.1 * place, np.float32) for place in range(count))
    return [made(f=f, target=target(), photo_name=f"face {place}") for place, f in enumerate(starts)]


def place_of(request) -> int:
    return round(float(request.f.mean()) * 10)


def updates_of(
    inversions, options=TEN, *, asynchronous=False, url=None, transport=None, until=lambda _place, _event: False
):
    """Everything that happens; ``until`` leaves early."""
    triton = FakeTransport(generator="a" * 16)
    found = []
    if not asynchronous:
        given = {"transport": triton, **({"refine_url": url} if url else {"refine_transport": transport})}
        with Inverter(**given) as inverter, closing(inverter.refine_all(inversions, None, options)) as updates:
            for update in updates:
                found.append(update)
                if until(*update):
                    break
        return found

    async def go():
        side = {"refine_url": url} if url else {"refine_transport": FakeAsyncRefineTransport(transport)}
        async with (
            AsyncInverter(transport=FakeAsyncTransport(triton), **side) as inverter,
            aclosing(inverter.refine_all(inversions, None, options)) as updates,
        ):
            async for update in updates:
                found.append(update)
                if until(*update):
                    break

    asyncio.run(go())
    return found


def test_faces_are_refined_at_a_time_and_each_as_if_alone(asynchronous):
    meeting = threading.Barrier(3)
    sidecar = FakeSidecar(on_step=lambda step, _context: step == 15 and meeting.wait(60))
    inversions = faces(3)
    with refining(sidecar) as url:
        updates = updates_of(inversions, asynchronous=asynchronous, url=url)
    for place, inversion in enumerate(inversions):
        alone = events_of(inversion, None, TEN, transport=FakeRefineTransport(), generator="a" * 16)
        mine = [event for index, event in updates if index == place]
        assert [type(event) for event in mine] == [type(event) for event in alone]
        assert result_of(mine).encode() == result_of(alone).encode()


def test_more_faces_take_turns(asynchronous):
    transport, most = FakeRefineTransport(), []

    def script(request):
        most.append(transport.open)
        yield from simulated(request)

    transport.scripts = (script,)
    updates = updates_of(faces(6), asynchronous=asynchronous, transport=transport)
    assert max(most) <= 3
    assert sorted(place_of(request) for request in transport.requests) == list(range(6))
    assert sum(isinstance(event, Checkpoint) for _, event in updates) == 6 * 4


@pytest.mark.parametrize(("count", "each"), [(1, 60), (4, 60), (5, 30), (8, 30), (9, 20)])
def test_faces_that_take_turns_share_the_seconds(count, each):
    assert FACES_AT_A_TIME == 4
    assert RefineOptions(seconds=60).shared(count).seconds == each
    assert RefineOptions().shared(count) == RefineOptions()


def test_one_that_fails_leaves_the_others(asynchronous):
    bad = failing(RefinementDiverged("the loss became NaN"), after=15)
    transport = FakeRefineTransport(lambda request: (bad if place_of(request) == 1 else simulated)(request))
    updates = updates_of(faces(6), asynchronous=asynchronous, transport=transport)
    last = dict(updates)
    assert [place for place, event in last.items() if isinstance(event, Failed)] == [1]
    assert str(last[1].problem) == "the loss became NaN"
    for place in (0, 2, 3, 4, 5):
        result_of([last[place]])


def test_what_all_would_meet_is_asked_once_in_a_turn(asynchronous):
    transport = FakeRefineTransport(failing(AccessDenied("the side-car does not let this client in")))
    updates = updates_of(faces(12), asynchronous=asynchronous, transport=transport)
    assert sorted(place for place, _ in updates) == list(range(12))
    assert all(isinstance(event.problem, AccessDenied) for _, event in updates)
    assert len(transport.requests) <= 4


def test_leaving_early_ends_all_jobs(asynchronous):
    ended, leave = threading.Semaphore(0), threading.Event()

    class Stalling(FakeSidecar):
        def Refine(self, request, context):
            context.add_callback(ended.release)
            yield from super().Refine(request, context)

    reached = set()

    def until(place, event):
        if isinstance(event, Progress):
            reached.add(place)
        return len(reached) == 3

    with refining(Stalling(on_step=lambda step, _context: step < 8 or leave.wait(60))) as url:
        updates_of(faces(3), asynchronous=asynchronous, url=url, until=until)
        assert all(ended.acquire(timeout=60) for _ in range(3))
        leave.set()


def test_a_mistake_of_ours_is_no_failure_of_a_face(asynchronous):
    def script(_request):
        raise KeyError("ours")
        yield

    with pytest.raises(KeyError, match="ours"):
        updates_of(faces(2), asynchronous=asynchronous, transport=FakeRefineTransport(script))
