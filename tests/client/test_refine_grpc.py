"""The side-car's protocol over real gRPC, both ways."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing, closing

import grpc
import numpy as np
import pytest

from client import (
    AccessDenied,
    AsyncInverter,
    ParameterError,
    Progress,
    RefinementDiverged,
    RefineOptions,
    RequestRejected,
    ServerBusy,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
    Terms,
)
from client.sidecar.grpc import AsyncGrpcRefineTransport, GrpcRefineTransport
from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from protocol.codec import to_options
from protocol.messages import RefineRequest, State
from protocol.status import trailing
from tests.client.fakes import FakeAsyncTransport, FakeTransport, check_sentence
from tests.client.inversions import held, made
from tests.client.sidecar_fakes import FakeSidecar, from_request, refining, simulated, stalling

TARGET = b"any bytes: the service decodes them"
STATE = State(
    step=20,
    seconds=10.0,
    f=np.full((512, 16, 16), 0.5, np.float32),
    w_m_plus=np.full((12, 512), 0.25, np.float32),
    optimiser={"momentum": np.zeros((512, 16, 16), np.float32), "count": np.array(20, np.float32)},
    terms=Terms(5.0, 4.0, 3.0, 2.0, 1.0),
)


def request(**changes) -> RefineRequest:
    inversion = made()
    fields = {
        "generator": inversion.generator,
        "domain": "ffhq",
        "target": TARGET,
        "f": inversion.f,
        "w_m_plus": inversion.w_m_plus,
        "f_o": inversion.f_o,
        "options": RefineOptions(checkpoint_every=10, preview_every=20),
        "request_id": "abc",
    }
    return RefineRequest(**{**fields, **changes})


def messages_of(url: str, sent: RefineRequest, *, asynchronous: bool, timeout: float | None = 60.0) -> list:
    """Everything that comes over a channel of its own."""
    if not asynchronous:
        transport = GrpcRefineTransport(url)
        with closing(transport):
            return list(transport.refine(sent, timeout=timeout))

    async def go():
        transport = AsyncGrpcRefineTransport(url)
        try:
            return [message async for message in transport.refine(sent, timeout=timeout)]
        finally:
            await transport.close()

    return asyncio.run(go())


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if hasattr(one, "__dict__"):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one == other


@pytest.mark.parametrize(
    "sent",
    [
        request(),
        request(resume=STATE),
        request(
            options=RefineOptions(
                preset="paper", steps=30, seconds=1.5, target=0.25, weights={"f": 0.0, "mse": 2.0}, checkpoint_every=7
            )
        ),
    ],
    ids=["start", "resume", "options"],
)
def test_requests_and_answers_survive_the_wire(sent, asynchronous):
    servicer = FakeSidecar()
    with refining(servicer) as url:
        found = messages_of(url, sent, asynchronous=asynchronous)
    assert same(from_request(servicer.requests[0]), sent)
    expected = list(simulated(sent))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert same(one, other), (one, other)


def test_what_is_not_chosen_is_left_to_the_server():
    options = to_options(RefineOptions())
    assert options.preset == "default"
    assert {field.name for field, _ in options.ListFields()} == {"preset", "weights", "checkpoint_every"}
    assert not any(options.weights.HasField(name) for name in pb.Weights.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "The server is draining.", ServerUnavailable),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", ServerUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "The queue is full.", ServerBusy),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", RequestRejected),
        (grpc.StatusCode.INVALID_ARGUMENT, "The steps are out of range.", RequestRejected),
        (grpc.StatusCode.FAILED_PRECONDITION, "The loss became NaN.", RefinementDiverged),
        (grpc.StatusCode.CANCELLED, "shutting down", ServerUnavailable),
        (grpc.StatusCode.PERMISSION_DENIED, "no", AccessDenied),
        (grpc.StatusCode.INTERNAL, "some long\nand \x07 strange trace", ServerError),
    ],
)
def test_errors_are_told_apart_in_one_sentence(code, details, kind, asynchronous):
    with (
        refining(FakeSidecar(on_step=lambda step, context: step < 8 or context.abort(code, details))) as url,
        pytest.raises(ServerError) as caught,
    ):
        messages_of(url, request(), asynchronous=asynchronous)
    assert type(caught.value) is kind
    check_sentence(caught.value)
    assert url in str(caught.value)
    assert ".." not in str(caught.value)


@pytest.mark.parametrize("reason", ["STARTING", "DRAINING", "QUEUE_FULL"])
def test_a_side_car_that_takes_nothing_now_says_so(reason, asynchronous):
    code, sentence = grpc.StatusCode.UNAVAILABLE, "Some sentence."

    def refuse(_step, context):
        context.set_trailing_metadata(trailing(code, sentence, reason))
        context.abort(code, sentence)

    with (
        refining(FakeSidecar(on_step=refuse)) as url,
        pytest.raises(ServerBusy, match="accepts no job now: some sentence") as caught,
    ):
        messages_of(url, request(), asynchronous=asynchronous)
    check_sentence(caught.value)


def test_no_side_car_and_another_server(asynchronous):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ServerUnavailable):
            messages_of(f"127.0.0.1:{taken.getsockname()[1]}", request(), asynchronous=asynchronous)

    class Other(refine_pb2_grpc.RefinementServicer):
        pass

    class Unimplemented(Other):
        def Refine(self, _request, context):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            yield

    with refining(Unimplemented()) as url, pytest.raises(ServerError, match="not a side-car"):
        messages_of(url, request(), asynchronous=asynchronous)


def test_the_deadline_ends_the_job_there(asynchronous):
    servicer = FakeSidecar()
    servicer.on_step = lambda _step, _context: servicer.over.wait(60)
    with refining(servicer) as url:
        with pytest.raises(ServerTimeout):
            messages_of(url, request(), asynchronous=asynchronous, timeout=0.3)
        assert servicer.over.wait(60)


def test_leaving_early_ends_the_job_there(asynchronous):
    servicer = stalling(at=8)
    with refining(servicer) as url:
        if asynchronous:

            async def go():
                transport = AsyncGrpcRefineTransport(url)
                async with aclosing(transport.refine(request(), timeout=None)) as messages:
                    async for message in messages:
                        if isinstance(message, Progress):
                            break
                assert await asyncio.to_thread(servicer.over.wait, 60)
                await transport.close()

            asyncio.run(go())
        else:
            transport = GrpcRefineTransport(url)
            with closing(transport):
                with closing(transport.refine(request(), timeout=None)) as messages:
                    next(message for message in messages if isinstance(message, Progress))
                assert servicer.over.wait(60)


def test_a_cancelled_task_ends_the_job_there():
    servicer = stalling(at=8)

    async def go(url):
        given = {"transport": FakeAsyncTransport(FakeTransport(generator="a" * 16)), "refine_url": url}
        async with AsyncInverter(**given) as inverter:
            reached = asyncio.Event()

            async def follow():
                async for event in inverter.refine(held()):
                    if isinstance(event, Progress):
                        reached.set()

            task = asyncio.create_task(follow())
            await asyncio.wait_for(reached.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(servicer.over.wait, 60)

    with refining(servicer) as url:
        asyncio.run(go(url))


@pytest.mark.parametrize("url", ["", "there", "http://there:1", "there:0"])
def test_malformed_addresses(url):
    for kind in (GrpcRefineTransport, AsyncGrpcRefineTransport):
        with pytest.raises(ParameterError):
            kind(url)
