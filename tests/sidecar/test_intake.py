"""Requests refused before they are read, what counts as a job, and results that nobody reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from sidecar.service import intake, servicer
from sidecar.service.door import Door
from sidecar.service.failures import Incomplete, QueueFull, Unread
from tests.sidecar.fakes import LIMITS, WAIT_S, Running, asked, failure, kinds, running, until, wait_until

REFINE = "/refine.v1.Refinement/Refine"
FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, QueueFull.sentence)


@contextmanager
def silent(side: Running, *bodies: bytes) -> Iterator[Any]:
    """A call that sends these bodies, and then keeps its stream open without another word."""
    said = threading.Event()

    def requests() -> Iterator[bytes]:
        yield from bodies
        said.wait(WAIT_S)

    call = side.channel.stream_stream(REFINE)(requests(), timeout=WAIT_S, wait_for_ready=True)
    try:
        yield call
    finally:
        said.set()
        call.cancel()


def test_a_stranger_is_refused_before_the_body_is_read() -> None:
    with running(door=Door(token="secret")) as side, silent(side) as call:
        assert failure(call)[1] == grpc.StatusCode.UNAUTHENTICATED


def test_a_call_counts_as_a_job_before_its_body_comes() -> None:
    with running(batch=1, queue=1) as side, silent(side) as one, silent(side) as two, silent(side) as three:
        calls = (one, two, three)
        wait_until(lambda: any(call.done() for call in calls))
        # Whichever came last: two are as many as may run and wait.
        (refused,) = [call for call in calls if call.done()]
        assert failure(refused)[1:] == FULL


@pytest.mark.parametrize("bodies", [(), (b"\xff\xff",)])
def test_a_body_that_does_not_come_gives_its_place_back(bodies: tuple[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "RECEIVE_S", 0.5)
    with running(batch=1, queue=0) as side:
        with silent(side, *bodies) as call:
            assert failure(call)[1:] == (Incomplete.code, Incomplete.sentence)
        side.engine.go(5)
        assert until(side.refine(steps=2), "done").step == 2
        assert side.outcomes() == {"refused": 1, "steps": 1}


def test_few_bodies_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "RECEIVE_S", 2)
    with running(batch=10) as side, silent(side), silent(side) as last:
        waiting = side.refine(steps=2)
        assert failure(last)[1] == Incomplete.code
        side.engine.go(5)
        assert until(waiting, "done").step == 2


def test_a_result_that_nobody_reads_is_dropped() -> None:
    with running(batch=1, queue=0, unread=0.3) as side:
        # No more is taken than the smallest window of flow control.
        options = [*LIMITS, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
        with grpc.insecure_channel(side.url, options=options) as channel:
            call = refine_pb2_grpc.RefinementStub(channel).Refine(asked(steps=2, checkpoint_every=1), timeout=WAIT_S)
            side.engine.go(10)
            wait_until(lambda: side.metric("refine_unread_total") == 1)
            # Its slot is free, and a late reader gets the reason.
            assert until(side.refine(steps=2), "done").step == 2
            events, *ended = failure(call)
        assert ended == [Unread.code, Unread.sentence]
        assert kinds(events)[:1] == ["queued"]
        assert side.outcomes() == {"steps": 2}


def test_a_long_step_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer, "ALIVE_S", 0.1)
    with running() as side:
        call = side.refine(steps=2)
        assert kinds([next(call), next(call), next(call)]) == ["queued", None, None]
        side.engine.go(5)
        assert until(call, "done").step == 2


def test_a_result_that_is_read_is_not_dropped() -> None:
    with running(unread=0) as side:
        side.engine.go(10)
        events = list(side.refine(steps=4))
        assert isinstance(events[-1], pb.RefineEvent)
        assert kinds(events)[-1] == "done"
        assert side.metric("refine_unread_total") == 0
