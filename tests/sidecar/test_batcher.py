"""The service around a fake engine: the order of events, batches, the queue, clients that read slowly."""

from __future__ import annotations

import asyncio
import io

import grpc
import numpy as np
import pytest
from PIL import Image

from protocol import refine_pb2 as pb
from protocol.codec import from_tensor
from sidecar.service import batcher
from sidecar.service.outbox import Outbox
from tests.sidecar.fakes import after, failure, kinds, running, until, wait_until


def test_the_stream_of_one_job() -> None:
    with running() as side:
        call = side.refine(steps=5, checkpoint_every=3, preview_every=3)
        assert until(call, "queued").position == 0
        told = []
        for _ in range(3):
            side.engine.go()
            told.append(until(call, "progress"))
        # Slices of two steps end early where a checkpoint or a preview is due.
        assert [(event.step, event.steps, event.seconds) for event in told] == [(2, 5, 1.0), (3, 5, 1.5), (5, 5, 2.5)]
        assert [event.terms.total for event in told] == [after(2), after(3), after(5)]
        done = until(call, "done")
        assert (done.step, done.seconds, done.reason) == (5, 2.5, pb.Done.STEPS)
        assert (done.metrics.stlpips_alex, done.metrics.psnr_256, done.metrics.psnr) == (0.5, 20.0, 19.0)
        assert not any(done.metrics.HasField(name) for name in ("identity", "landmarks", "face"))
        assert from_tensor(done.f, "f").max() == after(5)
        assert from_tensor(done.w_m_plus, "w").shape == (14, 512)
        assert list(call) == []


def test_slow_steps_have_a_checkpoint_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "_CHECKPOINT_SECONDS", 0)
    with running(slice_steps=1) as side:
        call = side.refine(steps=9, checkpoint_every=100)
        for step in range(1, 8):
            side.engine.go()
            assert until(call, "checkpoint").step == step


def test_checkpoints_and_previews_come_when_they_are_due() -> None:
    with running(slice_steps=100) as side:
        call = side.refine(steps=7, checkpoint_every=2, preview_every=3)
        until(call, "queued")
        for step, expected in ((2, "checkpoint"), (3, "preview"), (4, "checkpoint")):
            side.engine.go()
            events = [next(call) for _ in range(2)]
            assert kinds(events) == ["progress", expected]
            assert [getattr(event, kind).step for event, kind in zip(events, kinds(events), strict=True)] == [step] * 2
            if expected == "preview":
                assert Image.open(io.BytesIO(events[1].preview.jpeg)).format == "JPEG"
            else:
                assert from_tensor(events[1].checkpoint.f, "f").max() == np.float32(after(step))
        call.cancel()


@pytest.mark.parametrize("option", ["checkpoint_every", "progress_every", "preview_every"])
def test_slices_end_on_multiples_wherever_a_job_began(option: str) -> None:
    with running(slice_steps=100, batch=1) as side:
        first = side.refine(steps=30, checkpoint_every=3)
        side.engine.go()
        kept = until(first, "checkpoint")
        first.cancel()
        call = side.refine(resume=kept, steps=30, **{"progress_every": 10_000, option: 5})
        until(call, "queued")
        side.engine.go(2)
        kind = option.removesuffix("_every")
        # One or both slices are its own, as the cancelled job had begun another one or not; the newest event is sent.
        assert until(call, kind).step in (5, 10)
        call.cancel()


def test_jobs_join_and_leave_between_slices() -> None:
    with running() as side:
        first = side.refine(steps=8)
        until(first, "queued")
        side.engine.go()
        assert until(first, "progress").step == 2
        # The worker waits at the gate, in a slice that begins without the second job.
        wait_until(lambda: side.engine.entered == 2)
        second = side.refine(steps=2)
        until(second, "queued")
        side.engine.go(10)
        assert until(first, "done").step == 8
        assert until(second, "done").step == 2
        assert side.engine.slices == [[8], [8], [8, 2], [8]]
        assert side.outcomes() == {"steps": 2}
        assert side.metric("refine_steps_total") == 10
        assert side.metric("refine_batch_jobs_sum") == 5
        assert side.metric("refine_batch_jobs_count") == 4
        assert side.metric("refine_step_seconds_count") == 4
        assert side.metric("refine_job_seconds_count") == 2
        assert side.metric("refine_active_jobs") == side.metric("refine_queue_depth") == 0


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
        assert side.metric("refine_queue_depth") == 2
        events, code, sentence = failure(side.refine(steps=2))
        assert (code, sentence) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "The queue is full; try again later.")
        assert events == []
        side.engine.go()
        assert until(first, "done").step == 2
        assert list(first) == []
        assert until(third, "queued").position == 0
        wait_until(lambda: side.engine.entered == 2)
        fourth = side.refine(steps=2)
        assert until(fourth, "queued").position == 1
        side.engine.go(10)
        for call in (second, third, fourth):
            assert until(call, "done").step == 2
        assert side.outcomes() == {"steps": 4, "full": 1}


def test_jobs_that_are_judged_count_as_long_as_they_are() -> None:
    with running(batch=1, queue=0) as side:
        side.engine.hold_judge()
        side.engine.go(10)
        first = side.refine(steps=2)
        assert side.engine.judging.wait(60)
        assert failure(side.refine(steps=2))[1] == grpc.StatusCode.RESOURCE_EXHAUSTED
        side.engine.let_judge()
        assert until(first, "done").step == 2
        wait_until(lambda: side.outcomes() == {"steps": 1, "full": 1})


def test_a_client_that_does_not_read_misses_progress_and_no_result() -> None:
    with running() as side:
        side.engine.go(2000)
        slow = side.refine(steps=1000, checkpoint_every=1)
        wait_until(lambda: side.outcomes() == {"steps": 1})
        # A neighbour is not held up either.
        assert until(side.refine(steps=2), "done").step == 2
        events = list(slow)
        assert kinds(events)[-1] == "done"
        steps = [event.checkpoint.step for event in events if event.HasField("checkpoint")]
        assert steps == sorted(set(steps))
        # Connections hold some megabytes, of 160 kB each; the service holds one.
        assert len(steps) < 500


def test_an_outbox_keeps_the_newest_of_each_kind_in_order() -> None:
    async def use() -> Outbox:
        outbox = Outbox(asyncio.get_running_loop())
        for step in range(1000):
            outbox.put(pb.RefineEvent(progress=pb.Progress(step=step)))
            if step % 10 == 0:
                outbox.put(pb.RefineEvent(checkpoint=pb.Checkpoint(step=step)))
        events = await outbox.take()
        assert kinds(events) == ["checkpoint", "progress"]
        assert (events[0].checkpoint.step, events[1].progress.step) == (990, 999)
        outbox.wake()
        assert await outbox.take() == []
        return outbox

    # The worker may still put when the loop is gone.
    asyncio.run(use()).put(pb.RefineEvent(done=pb.Done()))
