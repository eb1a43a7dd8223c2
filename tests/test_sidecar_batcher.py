"""The service around a fake engine: order of events, batching, bounds, and every way in which a job ends."""

from __future__ import annotations

import asyncio
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from sidecar import server
from sidecar.convert import array, tensor
from sidecar.job import InvalidRequest, Metrics, Options, Reason, Start, State, Terms
from sidecar.server import Settings

F = np.zeros((512, 8, 8), np.float32)
W = np.zeros((14, 512), np.float32)
PIXELS = np.zeros((16, 16, 3), np.uint8)


class FakeJob:
    """Adds 1 to f in each step."""

    def __init__(self, options: Options, resume: State | None) -> None:
        self.preset, self.steps = options.preset, options.steps or 10
        self.step = resume.step if resume else 0
        self.seconds = 0.0
        self.value = float(resume.f.max()) if resume else 0.0
        self.reason: Reason | None = None

    @property
    def group(self) -> str:
        return self.preset

    @property
    def terms(self) -> Terms:
        return Terms(self.value, 0.0, 0.0, 0.0, 0.0)

    def state(self) -> State:
        return State(self.step, self.seconds, F + np.float32(self.value), W, {"w": W}, self.terms)


class FakeEngine:
    """Waits at a gate before each slice; presets: default, other, diverging (at step 3), failing."""

    domain, generator, resolution = "fake", "f" * 16, 16

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.entered = 0
        self.slices: list[list[int]] = []
        self.judged = threading.Event()
        self.judging = threading.Event()
        self.judge_fails = False
        self.judged.set()

    def open(self, start: Start, options: Options, resume: State | None = None) -> FakeJob:
        assert start.f.shape == F.shape
        if options.preset not in ("default", "other", "diverging", "failing"):
            raise InvalidRequest(f"There is no preset '{options.preset}'.")
        return FakeJob(options, resume)

    def run(self, jobs: Sequence[Any], steps: int) -> None:
        self.entered += 1
        assert self.gate.acquire(timeout=60)
        self.slices.append([job.steps for job in jobs])
        for job in jobs:
            if job.preset == "failing":
                raise RuntimeError("out of memory, say")
            for _ in range(min(steps, job.steps - job.step)):
                if job.preset == "diverging" and job.step == 3:
                    job.reason = "diverged"
                    break
                job.step, job.value, job.seconds = job.step + 1, job.value + 1, job.seconds + 0.5
            if job.step == job.steps:
                job.reason = "steps"

    def preview(self, state: State) -> np.ndarray[Any, np.dtype[np.uint8]]:
        assert state.step
        return PIXELS

    def judge(self, start: Start, state: State) -> Metrics:
        assert start.target.shape == PIXELS.shape
        assert state.step
        self.judging.set()
        assert self.judged.wait(60)
        if self.judge_fails:
            raise RuntimeError("no judge")
        return Metrics(stlpips_alex=0.5, psnr_256=20.0, psnr=19.0)

    def go(self, slices: int = 1) -> None:
        """Let so many slices run."""
        self.gate.release(slices)


class Running:
    """A server in a thread of its own."""

    def __init__(self, engine: FakeEngine, settings: Settings) -> None:
        self.engine = engine
        self._ready = threading.Event()
        self._where: dict[str, Any] = {}
        self.status: int | None = None
        self._stop: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._main, args=(settings,))
        self._thread.start()
        assert self._ready.wait(60)
        self.channel = grpc.insecure_channel(self._where["grpc"], options=[("grpc.enable_http_proxy", 0)])

    def _main(self, settings: Settings) -> None:
        async def main() -> int:
            loop = asyncio.get_running_loop()
            stop = loop.create_future()

            def end() -> None:
                with suppress(RuntimeError):  # the loop has ended already
                    loop.call_soon_threadsafe(lambda: stop.done() or stop.set_result(143))

            self._stop = end
            return await server.serve(lambda: self.engine, settings, ready=self._tell, stop=stop)

        self.status = asyncio.run(main())

    def _tell(self, where: dict[str, object]) -> None:
        self._where.update(where)
        self._ready.set()

    def drain(self) -> None:
        """As SIGTERM does."""
        self._stop()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def refine(self, *, resume: pb.Checkpoint | None = None, timeout: float = 60, **options: Any) -> Any:
        request = pb.RefineRequest(
            generator=self.engine.generator,
            domain="fake",
            pixels=pb.Pixels(width=16, height=16, rgb=PIXELS.tobytes()),
            f=tensor(F),
            w_m_plus=tensor(W),
            f_o=tensor(F),
            options=pb.Options(**options),
            resume=resume,
        )
        return refine_pb2_grpc.RefinementStub(self.channel).Refine(request, timeout=timeout)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(self._where["metrics"], timeout=10) as page:
            found = re.search(rf"^{re.escape(name)} (\S+)$", page.read().decode(), flags=re.MULTILINE)
        assert found, name
        return float(found[1])

    def health(self) -> Any:
        return health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    engine = FakeEngine()
    started = Running(engine, Settings(port=0, metrics_port=0, **{"slice_steps": 2, "batch": 2, "queue": 2, **options}))
    try:
        yield started
    finally:
        engine.go(1000)
        engine.judged.set()
        started.drain()
        started.join()
        started.channel.close()


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
    waiting = threading.Event()
    for _ in range(600):
        if condition():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not come about")


def test_the_stream_of_one_job() -> None:
    with running() as side:
        call = side.refine(steps=5, checkpoint_every=3, preview_every=3)
        assert until(call, "queued").position == 0
        steps = []
        for _ in range(3):
            side.engine.go()
            steps.append(until(call, "progress").step)
        # Slices of two steps end early where a checkpoint or a preview is due.
        assert steps == [2, 3, 5]
        done = until(call, "done")
        assert (done.step, done.reason, done.metrics.stlpips_alex) == (5, pb.Done.STEPS, 0.5)
        assert array(done.f, "f").max() == 5
        assert not done.metrics.HasField("identity")
        assert list(call) == []


def test_checkpoints_and_previews_come_when_they_are_due() -> None:
    with running(slice_steps=100) as side:
        call = side.refine(steps=7, checkpoint_every=2, preview_every=3)
        until(call, "queued")
        found: list[tuple[str, int]] = []
        for expected in (["progress", "checkpoint"], ["progress", "preview"], ["progress", "checkpoint"]):
            side.engine.go()
            events = [next(call) for _ in expected]
            assert kinds(events) == expected
            found += [(kind, getattr(event, kind).step) for kind, event in zip(expected, events, strict=True)]
        assert [step for _, step in found] == [2, 2, 3, 3, 4, 4]
        call.cancel()


def test_jobs_join_and_leave_between_slices() -> None:
    with running() as side:
        first = side.refine(steps=8)
        until(first, "queued")
        side.engine.go()
        assert until(first, "progress").step == 2
        # The worker waits at the gate, in a slice that begins without the second job.
        wait_until(lambda: side.engine.entered == 2)
        second = side.refine(steps=4)
        until(second, "queued")
        side.engine.go(10)
        assert until(first, "done").step == 8
        assert until(second, "done").step == 4
        assert side.engine.slices == [[8], [8], [8, 4], [8, 4]]
        assert side.metric('refine_jobs_total{outcome="steps"}') == 2
        assert side.metric("refine_steps_total") == 12
        assert side.metric("refine_batch_jobs_sum") == 6


def test_groups_take_turns() -> None:
    with running() as side:
        calls = [side.refine(steps=8)]
        wait_until(lambda: side.engine.entered == 1)
        calls.append(side.refine(steps=6, preset="other"))
        until(calls[1], "queued")
        side.engine.go(10)
        for call in calls:
            until(call, "done")
        assert side.engine.slices == [[8], [8], [6], [8], [6], [8], [6]]


def test_the_queue_is_bounded_and_says_where_a_job_stands() -> None:
    with running(batch=1, queue=2) as side:
        first = side.refine(steps=2)
        wait_until(lambda: side.metric("refine_active_jobs") == 1)
        second = side.refine(steps=2)
        assert until(second, "queued").position == 0
        third = side.refine(steps=2)
        assert until(third, "queued").position == 1
        _, code, sentence = failure(side.refine(steps=2))
        assert (code, sentence) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "The queue is full; try again later.")
        side.engine.go()
        assert until(third, "queued").position == 0
        fourth = side.refine(steps=2)
        assert until(fourth, "queued").position == 1
        side.engine.go(10)
        for call in (first, second, third, fourth):
            assert until(call, "done").step == 2
        assert side.metric('refine_jobs_total{outcome="full"}') == 1


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_client_that_is_gone_frees_its_slot(how: str) -> None:
    with running(batch=1) as side:
        active = side.refine(steps=1000, timeout=60 if how == "cancel" else 1)
        until(active, "queued")
        waiting = side.refine(steps=1000, timeout=60 if how == "cancel" else 1)
        until(waiting, "queued")
        if how == "cancel":
            waiting.cancel()
            active.cancel()
        wait_until(lambda: side.metric("refine_queue_depth") == 0)
        side.engine.go()
        wait_until(lambda: side.metric("refine_active_jobs") == 0)
        assert len(side.engine.slices) == 1
        assert side.metric('refine_jobs_total{outcome="cancelled"}') == 2
        side.engine.go(10)
        assert until(side.refine(steps=2), "done").step == 2


def test_draining_gives_checkpoints_and_ends() -> None:
    with running(batch=1) as side:
        active, waiting = side.refine(steps=1000, checkpoint_every=1000), None
        until(active, "queued")
        wait_until(lambda: side.metric("refine_active_jobs") == 1)
        waiting = side.refine(steps=1000)
        until(waiting, "queued")
        assert side.health() == health_pb2.HealthCheckResponse.SERVING
        side.drain()
        wait_until(lambda: side.health() == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert failure(side.refine(steps=2))[1] == grpc.StatusCode.UNAVAILABLE
        # Health changes before the worker is told: it may have begun another slice.
        side.engine.go(2)
        events, code, _ = failure(active)
        assert code == grpc.StatusCode.UNAVAILABLE
        assert kinds(events)[-2:] == ["progress", "checkpoint"]
        assert events[-1].checkpoint.step == events[-2].progress.step <= 4
        assert failure(waiting)[1] == grpc.StatusCode.UNAVAILABLE
        side.join()
        assert side.status == 143


def test_a_job_that_is_being_judged_is_waited_for() -> None:
    with running() as side:
        side.engine.judged.clear()
        call = side.refine(steps=2)
        side.engine.go()
        assert side.engine.judging.wait(60)
        side.drain()
        side.engine.judged.set()
        assert until(call, "done").step == 2


def test_a_resumed_job_is_the_same_job() -> None:
    with running() as side:
        call = side.refine(steps=6, checkpoint_every=2)
        side.engine.go(2)
        kept = until(call, "checkpoint")
        call.cancel()
        side.engine.go(20)
        whole = until(side.refine(steps=6), "done")
        resumed = until(side.refine(steps=6, resume=kept), "done")
        assert array(resumed.f, "f").max() == array(whole.f, "f").max() == 6
        assert resumed.step == 6


def test_a_diverging_job_ends_with_its_last_finite_state() -> None:
    with running() as side:
        side.engine.go(10)
        events, code, sentence = failure(side.refine(steps=9, preset="diverging"))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert "NaN" in sentence
        assert events[-1].checkpoint.step == 3
        assert side.metric('refine_jobs_total{outcome="diverged"}') == 1


def test_a_failing_engine_ends_its_batch_alone(caplog: pytest.LogCaptureFixture) -> None:
    del caplog
    with running() as side:
        side.engine.go(10)
        _, code, sentence = failure(side.refine(steps=9, preset="failing"))
        assert (code, sentence) == (
            grpc.StatusCode.INTERNAL,
            "The optimisation failed; the server's log says why.",
        )
        assert until(side.refine(steps=2), "done").step == 2


def test_a_result_that_cannot_be_judged_is_a_result() -> None:
    with running() as side:
        side.engine.judge_fails = True
        side.engine.go(10)
        done = until(side.refine(steps=2), "done")
        assert done.step == 2
        assert not done.HasField("metrics")


def test_a_client_that_does_not_read_misses_progress_and_no_result() -> None:
    with running() as side:
        call = side.refine(steps=400, checkpoint_every=1)
        side.engine.go(500)
        wait_until(lambda: side.metric('refine_jobs_total{outcome="steps"}') == 1)
        events = list(call)
        assert kinds(events)[-1] == "done"
        # What gRPC had already taken off the outbox, and one event of each kind.
        assert len(events) < 800


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "0" * 16}, "belongs to generator"),
        ({"domain": "cars"}, "serves the domain fake, not 'cars'"),
        ({"request_id": "a b"}, "request_id"),
        ({"f": pb.Tensor(shape=[512, 8, 8], data=b"1234")}, "f has 4 bytes"),
        ({"f": pb.Tensor(shape=[2**31, 2**31], data=b"1234")}, "f has 4 bytes"),
        ({"f_o": pb.Tensor(shape=[1, 1, 1, 1, 1], data=b"1234")}, "f_o has 5 dimensions"),
        ({"options": pb.Options(preset="best")}, "no preset 'best'"),
        ({"options": pb.Options(checkpoint_every=10_001)}, "checkpoint_every is at most 10000"),
        ({"pixels": pb.Pixels(width=20, height=16, rgb=b"")}, "must be square"),
        ({"pixels": pb.Pixels(width=16, height=16, rgb=b"1")}, "1 bytes, and its size needs 768"),
        ({"pixels": pb.Pixels(width=5000, height=5000, rgb=b"")}, "side must be 16 to 4096"),
        ({"encoded": b"GIF89a"}, "not a whole PNG, JPEG or WebP"),
        ({"encoded": b"0" * (16 * 2**20 + 1)}, "more than 16777216"),
        ({"encoded": b"", "pixels": None}, "not a whole PNG"),
        ({"pixels": None}, "has no photo"),
        ({"resume": pb.Checkpoint(state=[pb.NamedTensor()] * 65)}, "65 tensors, more than 64"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change: dict[str, Any], message: str) -> None:
    with running() as side:
        request = pb.RefineRequest(
            generator="f" * 16,
            domain="fake",
            pixels=pb.Pixels(width=16, height=16, rgb=PIXELS.tobytes()),
            f=tensor(F),
            w_m_plus=tensor(W),
            f_o=tensor(F),
        )
        for name, value in change.items():
            request.ClearField(name)  # type: ignore[arg-type]
            if isinstance(value, (str, bytes)):
                setattr(request, name, value)
            elif value is not None:
                getattr(request, name).CopyFrom(value)
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", 64 * 2**20)]
        channel = grpc.insecure_channel(side._where["grpc"], options=options)
        _, code, sentence = failure(refine_pb2_grpc.RefinementStub(channel).Refine(request, timeout=60))
        channel.close()
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert message in sentence
        assert "\n" not in sentence
        assert side.metric('refine_jobs_total{outcome="refused"}') == 1
