"""A fake engine, and a side-car around it in its own thread."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from protocol.codec import to_tensor
from protocol.limits import ContractError
from protocol.messages import State
from protocol.options import Options
from protocol.terms import Metrics, Terms
from sidecar.job import End, Engine, Start
from sidecar.service import server
from sidecar.service.server import ServiceSettings

GENERATOR, SIDE = "f" * 16, 16
F = np.zeros((512, 8, 8), np.float32)
W = np.zeros((14, 512), np.float32)
PIXELS = np.zeros((SIDE, SIDE, 3), np.uint8)
PRESETS = ("default", "other", "diverging", "failing", "unsaid", "unopened")
WAIT_S = 60
LIMITS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
]


def after(steps: int) -> float:
    """What f has become: its momentum halves and gains 1 in each step."""
    value = momentum = 0.0
    for _ in range(steps):
        momentum = momentum / 2 + 1
        value += momentum
    return value


class FakeJob:
    """Half a second a step."""

    def __init__(self, start: Start, options: Options, resume: State | None) -> None:
        self.preset, self.steps = options.preset, options.steps or 10
        self.step, self.seconds = (resume.step, resume.seconds) if resume else (0, 0.0)
        self.value = float((resume or start).f.max())
        self.momentum = float(resume.optimiser["momentum"][0]) if resume else 0.0
        self.reason: End | None = "steps" if self.step == self.steps else None

    @property
    def group(self) -> str:
        return self.preset

    @property
    def terms(self) -> Terms | None:
        return Terms(self.value, 0.0, 0.0, 0.0, 0.0) if self.step else None

    def advance(self) -> None:
        if self.preset == "diverging" and self.step == 3:
            self.reason = "diverged"
        if self.reason is None:
            self.step, self.seconds = self.step + 1, self.seconds + 0.5
            self.momentum = self.momentum / 2 + 1
            self.value += self.momentum
            self.reason = "steps" if self.step == self.steps else None

    def state(self) -> State:
        if self.preset == "unsaid" and self.step:
            raise RuntimeError("the device is gone")
        momentum = np.array([self.momentum], np.float32)
        return State(self.step, self.seconds, F + np.float32(self.value), W, {"momentum": momentum}, self.terms)


class FakeEngine:
    """Waits at a gate before each slice.

    Presets: ``diverging`` at step 3; ``failing`` in its first slice; ``unsaid`` has no state after its first step;
    ``unopened`` fails to open.
    """

    domain, generator, resolution = "fake", GENERATOR, SIDE

    def __init__(self) -> None:
        self.entered = 0
        self.slices: list[list[int]] = []
        self.judging = threading.Event()
        self.judge_fails = self.preview_fails = False
        self.steps_harm = False
        self._gate = threading.Semaphore(0)
        self._judge = threading.Event()
        self._judge.set()

    def open(self, start: Start, options: Options, resume: State | None = None) -> FakeJob:
        assert start.target.shape == PIXELS.shape
        if start.f.shape != F.shape or options.preset not in PRESETS:
            raise ContractError("the engine refuses it")
        if options.preset == "unopened":
            raise RuntimeError("out of memory, say")
        return FakeJob(start, options, resume)

    def run(self, jobs: Sequence[Any], steps: int) -> None:
        assert len({job.group for job in jobs}) == 1
        self.entered += 1
        assert self._gate.acquire(timeout=WAIT_S)
        self.slices.append([job.steps for job in jobs])
        for job in jobs:
            if job.preset == "failing":
                raise RuntimeError("out of memory, say")
            for _ in range(steps):
                job.advance()

    def preview(self, state: State) -> np.ndarray[Any, np.dtype[np.uint8]]:
        assert state.step
        if self.preview_fails:
            raise RuntimeError("no picture")
        return PIXELS

    def judge(self, start: Start, state: State) -> Metrics:
        assert start.target.shape == PIXELS.shape
        assert state.step
        self.judging.set()
        assert self._judge.wait(WAIT_S)
        if self.judge_fails:
            raise RuntimeError("no judge")
        worse = 0.25 if self.steps_harm and state.f.max() > start.f.max() else 0.0
        return Metrics(stlpips_alex=0.5 + worse, psnr_256=20.0, psnr=19.0)

    def go(self, slices: int = 1) -> None:
        """Let so many slices run."""
        self._gate.release(slices)

    def hold_judge(self) -> None:
        """Let judging wait for :meth:`let_judge`."""
        self._judge.clear()

    def let_judge(self) -> None:
        self._judge.set()


def asked(*, resume: pb.Checkpoint | None = None, request_id: str = "", **options: Any) -> pb.RefineRequest:
    """A job for the fake engine."""
    return pb.RefineRequest(
        generator=GENERATOR,
        domain="fake",
        pixels=pb.Pixels(width=SIDE, height=SIDE, rgb=PIXELS.tobytes()),
        f=to_tensor(F),
        w_m_plus=to_tensor(W),
        f_o=to_tensor(F),
        options=pb.Options(**options),
        resume=resume,
        request_id=request_id,
    )


class Running:
    """A side-car; ready once made, or with ``load`` at once."""

    def __init__(self, settings: ServiceSettings, load: Callable[[], Engine] | None = None) -> None:
        self.engine = FakeEngine()
        self.status: int | None = None
        self.url, self.metrics_url = f"{settings.address}:{settings.port}", ""
        self._begun, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._main, args=(settings, load or (lambda: self.engine)))
        self._thread.start()
        assert self._begun.wait(WAIT_S)
        if load is None:
            self.wait_ready()
        self.channel = grpc.insecure_channel(self.url, options=LIMITS)

    def _main(self, settings: ServiceSettings, load: Callable[[], Engine]) -> None:
        async def main() -> int:
            self._loop = asyncio.get_running_loop()
            self._stop: asyncio.Future[int] = self._loop.create_future()
            self._begun.set()
            return await server.serve(load, settings, ready=self._tell, stop=self._stop)

        self.status = asyncio.run(main())

    def _tell(self, where: dict[str, object]) -> None:
        self.url, self.metrics_url = str(where["grpc"]), str(where["metrics"])
        self._ready.set()

    def wait_ready(self) -> None:
        assert self._ready.wait(WAIT_S)

    def drain(self) -> None:
        """As SIGTERM does."""
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(lambda: self._stop.done() or self._stop.set_result(143))

    def join(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def close(self) -> None:
        """End it; its thread is not waited for, which :meth:`join` does: Prometheus' server takes half a second."""
        self.engine.go(1000)
        self.engine.let_judge()
        self.drain()
        self.channel.close()

    def refine(self, request: pb.RefineRequest | None = None, *, timeout: float = WAIT_S, **options: Any) -> Any:
        sent = asked(**options) if request is None else request
        return refine_pb2_grpc.RefinementStub(self.channel).Refine(sent, timeout=timeout, wait_for_ready=True)

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.metrics(), flags=re.MULTILINE)
        assert found, name
        return float(found[1])

    def metrics(self) -> str:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.metrics_url, timeout=30) as page:
            return str(page.read().decode())

    def outcomes(self) -> dict[str, int]:
        """How many jobs ended how."""
        pairs = re.findall(r'^refine_jobs_total\{outcome="(\w+)"\} (\S+)$', self.metrics(), flags=re.MULTILINE)
        return {name: int(float(count)) for name, count in pairs if float(count)}

    def health(self, name: str = "") -> Any:
        request = health_pb2.HealthCheckRequest(service=name)
        return health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=30, wait_for_ready=True).status


@contextmanager
def running(load: Callable[[], Engine] | None = None, **settings: Any) -> Iterator[Running]:
    """A side-car of two jobs at a time, two that wait, and slices of two steps, unless told otherwise."""
    chosen = {"port": 0, "metrics_port": 0, "slice_steps": 2, "batch": 2, "queue": 2, **settings}
    started = Running(ServiceSettings(**chosen), load)
    try:
        yield started
    finally:
        started.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kinds(events: Sequence[Any]) -> list[str]:
    return [event.WhichOneof("event") for event in events]


def until(call: Any, kind: str) -> Any:
    """The next event of a kind."""
    return next(getattr(event, kind) for event in call if event.WhichOneof("event") == kind)


def failure(call: Any) -> tuple[list[Any], grpc.StatusCode, str]:
    """What a stream still says, and how it ends."""
    events = []
    try:
        for event in call:
            events.append(event)
    except grpc.RpcError as problem:
        return events, problem.code(), problem.details()  # type: ignore[attr-defined]
    raise AssertionError("the stream ended well")


def wait_until(condition: Callable[[], bool]) -> None:
    waiting, end = threading.Event(), time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if condition():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not come about")
