"""Continuous batching: one thread runs slices of steps, and jobs join and leave between slices.

Jobs of one group run as one batch; groups take turns. Nothing is kept of a finished job: its client holds the state.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from assets.allocator import give_back
from protocol import codec
from protocol.messages import Finished, Preview, Progress, Queued, State
from protocol.terms import TERMS, Metrics, Terms
from protocol.verdict import error
from sidecar.job import Engine
from sidecar.service import preview
from sidecar.service.failures import Diverged, Draining, EngineFailed, Failure, QueueFull
from sidecar.service.metrics import Meters
from sidecar.service.ticket import Ticket

log = logging.getLogger("sidecar")

# Upper bound of a slice of slow steps: a drain must reach the next checkpoint within its grace period.
_SLICE_SECONDS = 2.0
# A stopped client keeps its last checkpoint: with slow steps, that should be the step that it shows.
_CHECKPOINT_SECONDS = 1.0
# Before the first step.
_UNKNOWN = Terms(**dict.fromkeys(("total", *TERMS), 0.0))


class Batcher:
    """Runs jobs on an engine.

    Args:
        engine: used by one thread only, except for judging.
        batch: number of jobs that run at the same time.
        queue: number of jobs that may wait.
        slice_steps: steps per slice.
        meters: the metrics.
    """

    def __init__(self, engine: Engine, *, batch: int, queue: int, slice_steps: int, meters: Meters) -> None:
        self._engine, self._meters = engine, meters
        self._batch, self._queue, self._slice = batch, queue, slice_steps
        self._changed = threading.Condition()
        self._waiting: list[Ticket] = []
        self._active: list[Ticket] = []
        self._draining = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        # Judging takes seconds; other jobs continue meanwhile.
        self._judges = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._judging: list[Ticket] = []
        self._step_seconds = 0.0

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def check_room(self) -> None:
        """Fail early where :meth:`submit` would fail.

        Raises:
            Draining: the side-car is shutting down.
            QueueFull: the queue is full.
        """
        with self._changed:
            if self._draining:
                raise Draining
            if len(self._waiting) + len(self._active) + len(self._judging) >= self._queue + self._batch:
                raise QueueFull

    def submit(self, ticket: Ticket) -> None:
        """Queue a job.

        Raises:
            Draining: the side-car is shutting down.
            QueueFull: the queue is full.
        """
        with self._changed:
            self.check_room()
            log.info("job queued", extra={"request_id": ticket.request_id, "steps": ticket.job.steps})
            self._waiting.append(ticket)
            self._say_positions()
            self._changed.notify_all()

    def cancel(self, ticket: Ticket) -> None:
        """Drop a job whose client is gone; a running one after its current slice."""
        with self._changed:
            ticket.cancelled = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._close(ticket, "cancelled")
                self._say_positions()
            self._changed.notify_all()

    def stop_taking(self) -> None:
        """End all waiting jobs, and take no more; running ones end with a checkpoint after their current slice."""
        with self._changed:
            self._draining = True
            for ticket in self._waiting:
                self._close(ticket, Draining.outcome, Draining(counted=True))
            self._waiting = []
            self._gauge()
            self._changed.notify_all()

    def drain(self, timeout: float) -> None:
        """Stop taking jobs, and wait until all have ended.

        Returns after ``timeout`` seconds at the latest; jobs left by then end without a checkpoint.
        """
        deadline = time.monotonic() + timeout
        self.stop_taking()
        self._thread.join(timeout)
        with self._changed:
            self._changed.wait_for(lambda: not self._judging, max(0.0, deadline - time.monotonic()))
            for ticket in (*self._active, *self._judging):
                self._close(ticket, Draining.outcome, Draining(counted=True))
        self._judges.shutdown(wait=False)

    def _work(self) -> None:
        while turn := self._next():
            self._run(turn)
        for ticket in self._active:
            try:
                self._checkpoint(ticket)
            except Exception:
                log.exception("there is no last checkpoint", extra={"request_id": ticket.request_id})
        self._leave(self._active, Draining.outcome, Draining(counted=True))

    def _next(self) -> list[Ticket]:
        """Wait for the jobs of the next slice; an empty list means that the service drains."""
        with self._changed:
            self._drop_cancelled()
            while not (self._draining or self._waiting or self._active):
                give_back()
                self._changed.wait()
                self._drop_cancelled()
            if self._draining:
                return []
            while self._waiting and len(self._active) < self._batch:
                self._admit(self._waiting.pop(0))
            self._say_positions()
            turn = [t for t in self._active if t.job.group == self._active[0].job.group]
            self._active = [t for t in self._active if t not in turn] + turn
            return turn

    def _admit(self, ticket: Ticket) -> None:
        self._active.append(ticket)
        ticket.kept = time.monotonic()
        log.info(
            "job started",
            extra={
                "request_id": ticket.request_id,
                "step": ticket.job.step,
                "waited": round(time.monotonic() - ticket.arrived, 3),
            },
        )

    def _run(self, turn: list[Ticket]) -> None:
        """Run one slice of a batch and report to its clients."""
        before = [ticket.job.step for ticket in turn]
        began = time.perf_counter()
        try:
            self._engine.run([ticket.job for ticket in turn], min(self._until_due(ticket) for ticket in turn))
        except Exception:
            self._fail(turn)
            return
        seconds = time.perf_counter() - began
        taken = sum(ticket.job.step for ticket in turn) - sum(before)
        self._meters.slice_done(jobs=len(turn), steps=taken, seconds=seconds)
        self._step_seconds = seconds * len(turn) / max(1, taken)
        for ticket in turn:
            try:
                self._report(ticket)
            except Exception:
                self._fail([ticket])

    def _until_due(self, ticket: Ticket) -> int:
        """Steps until the end of the slice or an earlier checkpoint, report or preview."""
        step, wanted = ticket.job.step, ticket.options
        cadence = (wanted.checkpoint_every, wanted.progress_every, wanted.preview_every)
        due = [every - step % every for every in cadence if every]
        fast = self._slice * self._step_seconds <= _SLICE_SECONDS
        return max(1, min(self._slice if fast else int(_SLICE_SECONDS / self._step_seconds), *due))

    def _report(self, ticket: Ticket) -> None:
        job, wanted = ticket.job, ticket.options
        if job.reason == "diverged":
            self._checkpoint(ticket)
            self._leave([ticket], Diverged.outcome, Diverged(counted=True))
            return
        if wanted.progress_every is None or job.step % wanted.progress_every == 0 or job.reason:
            ticket.outbox.put(codec.to_event(Progress(job.step, job.steps, job.seconds, job.terms or _UNKNOWN)))
        if wanted.preview_every and job.step % wanted.preview_every == 0:
            self._preview(ticket)
        if job.reason:
            with self._changed:
                self._active.remove(ticket)
                self._judging.append(ticket)
                self._gauge()
            self._judges.submit(self._finish, ticket)
        elif job.step % wanted.checkpoint_every == 0 or time.monotonic() - ticket.kept >= _CHECKPOINT_SECONDS:
            self._checkpoint(ticket)

    def _preview(self, ticket: Ticket) -> None:
        try:
            picture = preview.jpeg(self._engine.preview(ticket.job.state()))
        except Exception:
            log.exception("the preview failed", extra={"request_id": ticket.request_id})
            return
        ticket.outbox.put(codec.to_event(Preview(ticket.job.step, picture)))

    def _checkpoint(self, ticket: Ticket) -> None:
        if ticket.checkpointed != ticket.job.step:
            ticket.outbox.put(codec.to_event(ticket.job.state()))
            ticket.checkpointed, ticket.kept = ticket.job.step, time.monotonic()

    def _finish(self, ticket: Ticket) -> None:
        """Judge a result and send it, or the start if that is better; in the judges' thread."""
        try:
            state, reason = ticket.job.state(), ticket.job.reason
            assert reason is not None and reason != "diverged"
            metrics = None if ticket.cancelled else self._judged(ticket, state)
            done = Finished(state, reason, metrics)
            # The start need not keep the bound that was asked for.
            if metrics is not None and ticket.options.clip is None:
                start = replace(state, f=ticket.start.f, w_m_plus=ticket.start.w_m_plus)
                before = self._judged(ticket, start)
                if before is not None and error(before) < error(metrics):
                    done = Finished(start, reason, before, start_kept=True)
        except Exception:
            self._fail([ticket])
        else:
            self._leave([ticket], "cancelled" if ticket.cancelled else reason, last=done)

    def _judged(self, ticket: Ticket, state: State) -> Metrics | None:
        try:
            return self._engine.judge(ticket.start, state)
        except Exception:
            log.exception("judging failed", extra={"request_id": ticket.request_id})
            return None

    def _drop_cancelled(self) -> None:
        for ticket in [t for t in self._active if t.cancelled]:
            self._active.remove(ticket)
            self._close(ticket, "cancelled")
        self._gauge()

    def _fail(self, tickets: list[Ticket]) -> None:
        """End jobs because of the exception being handled."""
        log.exception("the engine failed", extra={"request_id": ",".join(t.request_id for t in tickets)})
        self._leave(tickets, EngineFailed.outcome, EngineFailed(counted=True))

    def _leave(
        self, tickets: list[Ticket], outcome: str, failure: Failure | None = None, last: Finished | None = None
    ) -> None:
        with self._changed:
            self._active = [t for t in self._active if t not in tickets]
            self._judging = [t for t in self._judging if t not in tickets]
            self._gauge()
            for ticket in tickets:
                self._close(ticket, outcome, failure, last)
            self._changed.notify_all()

    def _close(
        self, ticket: Ticket, outcome: str, failure: Failure | None = None, last: Finished | None = None
    ) -> None:
        """Count a job and end its stream, once. Call with the lock held: count before the client hears of it."""
        if ticket.closed:
            return
        seconds = time.monotonic() - ticket.arrived
        self._meters.job_ended(outcome, seconds=seconds)
        log.info(
            "job ended",
            extra={
                "request_id": ticket.request_id,
                "outcome": outcome,
                "step": ticket.job.step,
                "seconds": round(seconds, 3),
            },
        )
        if last is not None:
            ticket.outbox.put(codec.to_event(last))
        ticket.failure, ticket.closed = failure, True
        ticket.outbox.end()

    def _say_positions(self) -> None:
        for position, ticket in enumerate(self._waiting):
            if ticket.position != position:
                ticket.position = position
                ticket.outbox.put(codec.to_event(Queued(position)))
        self._gauge()

    def _gauge(self) -> None:
        self._meters.jobs(waiting=len(self._waiting), active=len(self._active))
