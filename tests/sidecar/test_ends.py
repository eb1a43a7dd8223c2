"""Every way in which a job of the service ends: its client goes, the side-car drains or is killed, something fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2

from protocol import refine_pb2 as pb
from protocol.codec import from_tensor
from protocol.status import reason_of
from sidecar.service.servicer import NAME
from tests.sidecar.fakes import Running, after, asked, failure, kinds, running, until, wait_until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SHUTTING_DOWN = "The side-car is shutting down; continue elsewhere from the checkpoint."
FAILED = "The optimisation failed; the server's log says why."


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """Messages of the side-car's log at level ERROR."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log, handler = logging.getLogger("sidecar"), Keep(logging.ERROR)
    log.addHandler(handler)
    yield found
    log.removeHandler(handler)


def active(side: Running, **options: object) -> object:
    """A long job that waits at the gate of its first slice."""
    before = side.engine.entered
    call = side.refine(steps=1000, **options)
    until(call, "queued")
    wait_until(lambda: side.engine.entered == before + 1)
    return call


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_client_that_is_gone_frees_its_slot(how: str) -> None:
    timeout = 60 if how == "cancel" else 2
    with running(batch=1) as side:
        calls = [side.refine(steps=1000, timeout=timeout) for _ in range(2)]
        wait_until(lambda: side.metric("refine_queue_depth") == 1 and side.engine.entered == 1)
        if how == "cancel":
            for call in calls:
                call.cancel()
        wait_until(lambda: side.outcomes() == {"cancelled": 1})
        assert side.metric("refine_active_jobs") == 1
        side.engine.go()
        wait_until(lambda: side.outcomes() == {"cancelled": 2})
        assert side.metric("refine_active_jobs") == side.metric("refine_queue_depth") == 0
        assert len(side.engine.slices) == 1
        side.engine.go(10)
        assert until(side.refine(steps=2), "done").step == 2


def test_a_client_that_does_not_read_and_hangs_up_frees_its_slot() -> None:
    with running(batch=1) as side:
        side.engine.go(200)
        call = side.refine(steps=1000, checkpoint_every=1)
        # By now the stream is blocked in a write.
        wait_until(lambda: side.engine.entered == 201)
        call.cancel()
        side.engine.go(100)
        wait_until(lambda: side.outcomes() == {"cancelled": 1})
        assert side.engine.entered < 301


def test_a_client_that_hangs_up_while_its_result_is_judged_is_counted_as_gone() -> None:
    with running() as side:
        side.engine.hold_judge()
        side.engine.go()
        call = side.refine(steps=2)
        assert side.engine.judging.wait(60)
        call.cancel()
        other = side.refine(steps=4)
        side.engine.go()
        assert until(other, "progress").step == 2
        side.engine.let_judge()
        side.engine.go()
        assert until(other, "done").step == 4
        assert side.outcomes() == {"cancelled": 1, "steps": 1}


def test_draining_gives_checkpoints_and_ends() -> None:
    with running(batch=1) as side:
        first = active(side, checkpoint_every=1000)
        waiting = side.refine(steps=1000)
        until(waiting, "queued")
        assert side.health() == side.health(NAME) == SERVING
        side.drain()
        wait_until(lambda: side.health() == side.health(NAME) == NOT_SERVING)
        assert failure(side.refine(steps=2))[1:] == (grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
        events, code, _ = failure(waiting)
        assert (code, events) == (grpc.StatusCode.UNAVAILABLE, [])
        assert side.outcomes() == {"unavailable": 2}
        side.engine.go()
        events, code, sentence = failure(first)
        assert (code, sentence) == (grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
        assert kinds(events)[-2:] == ["progress", "checkpoint"]
        assert events[-1].checkpoint.step == events[-2].progress.step == 2
        side.join()
        assert side.status == 143


def test_draining_waits_for_the_judge() -> None:
    with running() as side:
        side.engine.hold_judge()
        call = side.refine(steps=2)
        side.engine.go()
        assert side.engine.judging.wait(60)
        side.drain()
        wait_until(lambda: side.health() == NOT_SERVING)
        side.engine.let_judge()
        assert until(call, "done").step == 2
        assert list(call) == []


@pytest.mark.parametrize("where", ["step", "judge"])
def test_what_takes_longer_than_the_grace_is_cut(where: str) -> None:
    with running(grace=3.0) as side:
        if where == "step":
            call = active(side)
        else:
            side.engine.hold_judge()
            side.engine.go()
            call = side.refine(steps=2, checkpoint_every=1000)
            assert side.engine.judging.wait(60)
        side.drain()
        events, code, sentence = failure(call)
        assert (code, sentence) == (grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
        assert not set(kinds(events)) & {"checkpoint", "done"}
        side.join()
        assert side.status == 143


@pytest.mark.parametrize("cut", ["killed", "cancelled", "drained"])
def test_a_job_continues_elsewhere_from_its_last_checkpoint(cut: str) -> None:
    with running(grace=0.0 if cut == "killed" else 10.0) as side:
        call = side.refine(steps=12, checkpoint_every=4)
        side.engine.go(3)
        kept = until(call, "checkpoint")
        wait_until(lambda: side.engine.entered == 4)
        if cut == "cancelled":
            call.cancel()
        else:
            side.drain()
            if cut == "drained":
                wait_until(lambda: side.health() == NOT_SERVING)
                side.engine.go()
            events, code, _ = failure(call)
            assert code == grpc.StatusCode.UNAVAILABLE
            later = [event.checkpoint for event in events if event.HasField("checkpoint")]
            assert bool(later) == (cut == "drained")
            kept = (later or [kept])[-1]
    assert kept.step >= 4
    with running() as side:
        side.engine.go(20)
        whole = until(side.refine(steps=12), "done")
        # The start is then not looked at.
        request = asked(steps=12, resume=kept)
        request.f.data = b"\1" * len(request.f.data)
        resumed = until(side.refine(request), "done")
        assert resumed.f == whole.f
        assert resumed.terms == whole.terms
        assert (resumed.step, resumed.seconds) == (12, 6.0)
        assert from_tensor(whole.f, "f").max() == pytest.approx(after(12))
        assert side.metric("refine_steps_total") == 24 - kept.step


def test_a_job_that_was_at_its_end_is_judged_again() -> None:
    with running() as side:
        side.engine.go(20)
        call = side.refine(steps=6, checkpoint_every=2)
        kept = [event.checkpoint for event in call if event.HasField("checkpoint")][-1]
        done = until(side.refine(steps=kept.step, resume=kept), "done")
        assert (done.step, done.reason, done.f) == (kept.step, pb.Done.STEPS, kept.f)
        assert done.metrics.psnr == 19


def test_a_result_that_is_worse_than_the_start_is_the_start() -> None:
    with running() as side:
        side.engine.steps_harm = True
        side.engine.go(10)
        done = until(side.refine(steps=3), "done")
        assert (done.step, done.start_kept, done.metrics.stlpips_alex) == (3, True, 0.5)
        assert from_tensor(done.f, "f").max() == 0
        side.engine.go(10)
        # A start may be outside the bound that a result keeps.
        assert not until(side.refine(steps=3, clip=2.0), "done").start_kept
        side.engine.steps_harm = False
        side.engine.go(10)
        done = until(side.refine(steps=3), "done")
        assert (done.start_kept, from_tensor(done.f, "f").max()) == (False, after(3))


def test_a_diverging_job_ends_with_its_last_finite_state() -> None:
    with running() as side:
        side.engine.go(10)
        events, code, sentence = failure(side.refine(steps=9, preset="diverging"))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert sentence == "The loss became NaN or infinite; the last finite state is in the checkpoint."
        assert kinds(events)[-1] == "checkpoint"
        assert events[-1].checkpoint.step == 3
        assert from_tensor(events[-1].checkpoint.f, "f").max() == after(3)
        assert side.outcomes() == {"diverged": 1}


@pytest.mark.parametrize(
    ("preset", "sentence"),
    [("failing", FAILED), ("unsaid", FAILED), ("unopened", "The request failed; the server's log says why.")],
)
def test_a_failing_engine_ends_its_jobs_alone(preset: str, sentence: str, errors: list[str]) -> None:
    with running() as side:
        beside = side.refine(steps=12)
        wait_until(lambda: side.engine.entered == 1)
        failing = side.refine(steps=9, preset=preset, checkpoint_every=1)
        if preset != "unopened":
            until(failing, "queued")
        side.engine.go(20)
        events, code, said = failure(failing)
        assert (code, said) == (grpc.StatusCode.INTERNAL, sentence)
        assert "checkpoint" not in kinds(events)
        assert len(errors) == 1
        assert until(beside, "done").step == 12
        assert until(side.refine(steps=2), "done").step == 2
        assert side.outcomes() == {"error": 1, "steps": 2}


def test_a_result_that_cannot_be_stated_fails(errors: list[str]) -> None:
    with running() as side:
        side.engine.go(10)
        # Its only slice is its last: the judges' thread asks for the state.
        assert failure(side.refine(steps=1, preset="unsaid"))[1:] == (grpc.StatusCode.INTERNAL, FAILED)
        assert errors == ["the engine failed"]
        assert side.outcomes() == {"error": 1}
        assert until(side.refine(steps=2), "done").step == 2


def test_a_drain_without_a_last_checkpoint_ends(errors: list[str]) -> None:
    with running() as side:
        call = active(side, preset="unsaid", checkpoint_every=1000)
        side.drain()
        wait_until(lambda: side.health() == NOT_SERVING)
        side.engine.go()
        assert failure(call)[1] == grpc.StatusCode.UNAVAILABLE
        assert errors == ["there is no last checkpoint"]


def test_a_result_that_cannot_be_judged_is_a_result(errors: list[str]) -> None:
    with running() as side:
        side.engine.judge_fails = True
        side.engine.go(10)
        done = until(side.refine(steps=2), "done")
        assert done.step == 2
        assert not done.HasField("metrics")
        assert errors == ["judging failed"]


def test_a_preview_that_fails_is_left_out(errors: list[str]) -> None:
    with running() as side:
        side.engine.preview_fails = True
        side.engine.go(10)
        events = list(side.refine(steps=2, preview_every=2))
        assert kinds(events)[-1] == "done"
        assert "preview" not in kinds(events)
        assert errors == ["the preview failed"]


def test_the_status_says_why_in_its_details() -> None:
    with running(batch=1, queue=0) as side:
        with pytest.raises(grpc.RpcError) as caught:
            list(side.refine(asked(steps=0)))
        assert reason_of(caught.value) is None
        active(side)
        with pytest.raises(grpc.RpcError) as caught:
            list(side.refine(steps=2))
        assert reason_of(caught.value) == "QUEUE_FULL"
