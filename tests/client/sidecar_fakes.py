"""A pretended side-car: an optimisation of a few lines, as a transport and as a real gRPC endpoint."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import grpc
import numpy as np
from PIL import Image

from client.files.record import RefineOptions
from protocol import codec, refine_pb2_grpc
from protocol import refine_pb2 as pb
from protocol.messages import Finished, Message, Preview, Progress, Queued, RefineRequest, State
from protocol.terms import Metrics, Terms
from tests.client.fakes import listening

STEPS = 40
SLICE = 5
METRICS = Metrics(stlpips_alex=0.25, psnr_256=20.5, psnr=18.25, identity=0.75, landmarks=0.0625, face=True, eyes=0.875)
Hook = Callable[[int], None]


def jpeg(step: int) -> bytes:
    """A picture that is as red as the step is late."""
    buffer = io.BytesIO()
    Image.new("RGB", (256, 256), (step % 256, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def stepped(state: State) -> State:
    """One step with momentum: the result shows whether the optimiser's state was kept."""
    momentum = state.optimiser.get("momentum", np.zeros_like(state.f))
    momentum = np.float32(0.9) * momentum + (np.float32(1) - state.f)
    f = state.f + np.float32(0.05) * momentum
    w = state.w_m_plus * np.float32(0.99)
    error = float(((1 - f) ** 2).mean())
    return State(
        step=state.step + 1,
        seconds=state.seconds + 0.5,
        f=f,
        w_m_plus=w,
        optimiser={"momentum": momentum},
        terms=Terms(float(np.float32(error + 1)), error, 0.5, 0.25, 0.125),
    )


def start(request: RefineRequest) -> State:
    if request.resume is not None:
        return request.resume
    return State(step=0, seconds=0.0, f=request.f, w_m_plus=request.w_m_plus, optimiser={}, terms=None)


def simulated(request: RefineRequest, hook: Hook = lambda _step: None) -> Iterator[Message]:
    """What a side-car would say; ``hook`` is called after each step and may raise or wait."""
    options = request.options
    steps = options.steps or STEPS
    state = start(request)
    yield Queued(0)
    while state.step < steps:
        state = stepped(state)
        hook(state.step)
        if state.step % SLICE == 0 or state.step == steps:
            assert state.terms is not None
            yield Progress(state.step, steps, state.seconds, state.terms)
        if state.step % options.checkpoint_every == 0 and state.step < steps:
            yield state
        if options.preview_every and state.step % options.preview_every == 0:
            yield Preview(state.step, jpeg(state.step))
    yield Finished(replace(state, optimiser={}), "steps", METRICS)


class FakeRefineTransport:
    """Each attempt asks the next script, the last one again and again; a script gets the request."""

    url = "fake:8003"

    def __init__(self, *scripts: Callable[[RefineRequest], Iterator[Message]]) -> None:
        self.scripts = scripts or (simulated,)
        self.requests: list[RefineRequest] = []
        self.timeouts: list[float | None] = []
        self.open = 0
        self.closed = False

    def refine(self, request, *, timeout):
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.timeouts.append(timeout)
        self.open += 1
        try:
            yield from script(request)
        finally:
            self.open -= 1

    def close(self):
        self.closed = True


class FakeAsyncRefineTransport:
    """``FakeRefineTransport`` with an asynchronous generator."""

    def __init__(self, inner: FakeRefineTransport) -> None:
        self.inner = inner
        self.url = inner.url

    async def refine(self, request, *, timeout):
        messages = self.inner.refine(request, timeout=timeout)
        try:
            for message in messages:
                yield message
        finally:
            messages.close()

    async def close(self):
        self.inner.close()


def from_request(message: pb.RefineRequest) -> RefineRequest:
    """The request as the client made it."""
    request = codec.from_request(message)
    return replace(request, options=RefineOptions(**vars(request.options)))


@dataclass
class FakeSidecar(refine_pb2_grpc.RefinementServicer):
    """The service over the same simulation.

    ``on_step`` gets the step and the context, and may abort it or wait; ``over`` is set when a call has ended.
    """

    on_step: Callable[[int, grpc.ServicerContext], None] = lambda _step, _context: None
    requests: list[pb.RefineRequest] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def Refine(self, request, context):
        self.requests.append(request)
        context.add_callback(self.over.set)
        for message in simulated(from_request(request), lambda step: self.on_step(step, context)):
            yield codec.to_event(message)


def refining(servicer: refine_pb2_grpc.RefinementServicer, port: int = 0) -> AbstractContextManager[str]:
    """Serve a side-car; see ``tests.client.fakes.listening``."""
    limits = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]
    return listening(lambda server: refine_pb2_grpc.add_RefinementServicer_to_server(servicer, server), port, limits)


def stalling(at: int) -> FakeSidecar:
    """A side-car that gets no further than this step."""
    servicer = FakeSidecar()
    servicer.on_step = lambda step, _context: step < at or servicer.over.wait(60)
    return servicer
