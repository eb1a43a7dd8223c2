"""Refinements over real gRPC: servers that stall, restart, or send large states."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from client import (
    AsyncInverter,
    Checkpoint,
    Inverter,
    Preview,
    Refined,
    RefineOptions,
    ServerUnavailable,
    Timeout,
    Waiting,
)
from protocol import refine_pb2 as pb
from protocol.codec import to_tensor
from tests.client.fakes import FakeAsyncTransport, FakeTransport
from tests.client.inversions import held
from tests.client.sidecar_fakes import STEPS, FakeRefineTransport, FakeSidecar, refining, stalling


def refined(url: str, *, asynchronous: bool, patience: float = 60.0, watch=lambda _event: None) -> list:
    options = RefineOptions(checkpoint_every=10)
    timeout = Timeout(patience=patience)
    found = []
    transport = FakeTransport(generator="a" * 16)
    if not asynchronous:
        with Inverter(transport=transport, refine_url=url, timeout=timeout) as inverter:
            for event in inverter.refine(held(), options=options):
                found.append(event)
                watch(event)
        return found

    async def go():
        given = {"transport": FakeAsyncTransport(transport), "refine_url": url, "timeout": timeout}
        async with AsyncInverter(**given) as inverter:
            async for event in inverter.refine(held(), options=options):
                found.append(event)
                await asyncio.to_thread(watch, event)

    asyncio.run(go())
    return found


@pytest.mark.parametrize("at", [0, 8])
def test_silence_is_not_waited_for_longer_than_the_patience(asynchronous, at):
    servicer = stalling(at=at)
    began = time.monotonic()
    with refining(servicer) as url:
        with pytest.raises(ServerUnavailable, match=r"said nothing for 1\.5 seconds|no side-car answers"):
            refined(url, asynchronous=asynchronous, patience=1.5)
        servicer.over.set()
    assert 1.4 < time.monotonic() - began < 6


def test_signs_of_life_are_not_silence(asynchronous):
    class Living(FakeSidecar):
        def Refine(self, request, context):
            for event in super().Refine(request, context):
                if event.WhichOneof("event") == "done":
                    for _ in range(8):
                        time.sleep(0.2)
                        yield pb.RefineEvent()
                yield event

    with refining(Living()) as url:
        assert isinstance(refined(url, asynchronous=asynchronous, patience=1.0)[-1], Refined)


def test_a_side_car_that_restarts_on_its_port(asynchronous):
    first, second = stalling(at=15), FakeSidecar()
    serving = refining(first)
    url = serving.__enter__()
    again = refining(second, int(url.rpartition(":")[2]))
    restarted = []

    def watch(event):
        if isinstance(event, Checkpoint) and event.inversion.refinement.step == 10 and not restarted:
            serving.__exit__(None, None, None)
            again.__enter__()
            restarted.append(True)

    try:
        found = refined(url, asynchronous=asynchronous, watch=watch)
    finally:
        again.__exit__(None, None, None)
    assert any(isinstance(event, Waiting) for event in found)
    assert second.requests[0].resume.step == 10
    assert isinstance(found[-1], Refined)
    with Inverter(transport=FakeTransport(generator="a" * 16), refine_transport=FakeRefineTransport()) as inverter:
        *_, alone = inverter.refine(held(), options=RefineOptions(checkpoint_every=10))
    np.testing.assert_array_equal(found[-1].inversion.f, alone.inversion.f)
    assert found[-1].inversion.refinement.step == STEPS


def test_a_large_state_comes_through(asynchronous):
    large = np.zeros(12 * 2**20, np.float32)

    class Large(FakeSidecar):
        def Refine(self, request, context):
            for event in super().Refine(request, context):
                if event.WhichOneof("event") == "checkpoint":
                    event.checkpoint.state.append(pb.NamedTensor(name="history", value=to_tensor(large)))
                yield event

    with refining(Large()) as url:
        found = refined(url, asynchronous=asynchronous)
    kept = [event.inversion for event in found if isinstance(event, Checkpoint)]
    assert kept[-1].refinement.optimiser["history"].shape == large.shape
    assert not any(isinstance(event, Preview) for event in found)
