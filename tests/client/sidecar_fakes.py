"""A pretended side-car: an optimisation of a few lines, as a transport and as a real gRPC endpoint."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from PIL import Image

from client.sidecar.record import Metrics, RefineOptions, Terms
from client.sidecar.transport import Finished, Message, Preview, Progress, Queued, RefineRequest, State
from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc

STEPS = 40
SLICE = 5
METRICS = Metrics(stlpips_alex=0.25, psnr_256=20.5, psnr=18.25, identity=0.75, landmarks=0.0625, face=True)
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
    yield Finished(
        State(
            step=state.step,
            seconds=state.seconds,
            f=state.f,
            w_m_plus=state.w_m_plus,
            optimiser={},
            terms=state.terms,
        ),
        "steps",
        METRICS,
    )


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
    weights = message.options.weights
    options = RefineOptions(
        preset=message.options.preset,
        steps=message.options.steps or None,
        seconds=message.options.seconds or None,
        target=message.options.target or None,
        weights={
            term: getattr(weights, term) for term in pb.Weights.DESCRIPTOR.fields_by_name if weights.HasField(term)
        },
        checkpoint_every=message.options.checkpoint_every,
        preview_every=message.options.preview_every,
        clip=message.options.clip or None,
    )
    resume = None
    if message.HasField("resume"):
        found = message.resume
        resume = State(
            step=found.step,
            seconds=found.seconds,
            f=from_tensor(found.f),
            w_m_plus=from_tensor(found.w_m_plus),
            optimiser={item.name: from_tensor(item.value) for item in found.state},
            terms=from_terms(found.terms) if found.HasField("terms") else None,
        )
    return RefineRequest(
        generator=message.generator,
        domain=message.domain,
        target=message.encoded,
        f=from_tensor(message.f),
        w_m_plus=from_tensor(message.w_m_plus),
        f_o=from_tensor(message.f_o),
        options=options,
        request_id=message.request_id,
        resume=resume,
    )


def from_terms(found: pb.Terms) -> Terms:
    return Terms(found.total, found.mse, found.perceptual, found.f, found.p_norm, found.domain)


def from_tensor(found: pb.Tensor) -> np.ndarray:
    return np.frombuffer(found.data, "<f4").reshape(tuple(found.shape))


def to_tensor(value: np.ndarray) -> pb.Tensor:
    return pb.Tensor(shape=value.shape, data=value.astype("<f4").tobytes())


def to_event(message: Message) -> pb.RefineEvent:
    match message:
        case Queued(position):
            return pb.RefineEvent(queued=pb.Queued(position=position))
        case Progress(step, steps, seconds, terms):
            progress = pb.Progress(step=step, steps=steps, seconds=seconds, terms=pb.Terms(**vars(terms)))
            return pb.RefineEvent(progress=progress)
        case Preview(step, data):
            return pb.RefineEvent(preview=pb.Preview(step=step, jpeg=data))
        case State():
            named = [pb.NamedTensor(name=name, value=to_tensor(value)) for name, value in message.optimiser.items()]
            return pb.RefineEvent(checkpoint=pb.Checkpoint(state=named, **shared(message)))
        case Finished(state, reason, metrics):
            numbers = {name: value for name, value in vars(metrics).items() if value is not None}
            done = pb.Done(reason=reason.upper(), metrics=pb.Metrics(**numbers), **shared(state))
            return pb.RefineEvent(done=done)


def shared(state: State) -> dict[str, object]:
    terms = {} if state.terms is None else {"terms": pb.Terms(**vars(state.terms))}
    return {
        "step": state.step,
        "seconds": state.seconds,
        "f": to_tensor(state.f),
        "w_m_plus": to_tensor(state.w_m_plus),
        **terms,
    }


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
            yield to_event(message)


@contextmanager
def refining(servicer: refine_pb2_grpc.RefinementServicer, port: int = 0) -> Iterator[str]:
    """Serve on a port of this machine, a free one by default, and give its address."""
    limits = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=limits)
    refine_pb2_grpc.add_RefinementServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait()
