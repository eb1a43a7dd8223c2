"""Refinement that survives its server: the client holds the job, and any side-car can continue it.

``Refiner`` decides what to ask next, which answers to accept, and how long to wait for a server that went away;
``refine`` and ``refine_async`` drive it over a transport.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass, replace

from client.errors import AnswerRefused, ParameterError, ServerBusy, ServerError, ServerTimeout, ServerUnavailable
from client.files.inversion import Inversion
from client.files.record import Refinement, RefineOptions, check_optimiser
from client.sidecar.silence import SidecarSilent
from client.sidecar.transport import AsyncRefineTransport, RefineTransport
from client.text import clause
from client.wire.request_id import request_id
from client.wire.retry import backoff
from client.wire.timeout import Timeout
from protocol.messages import Finished, Floats, Message, Preview, Progress, Queued, RefineRequest, State
from protocol.options import MAX_STEPS
from protocol.terms import Metrics


@dataclass(frozen=True)
class Waiting:
    """The side-car went away or takes nothing now (``reason``, one sentence); it is asked again in ``seconds``."""

    reason: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The inversion as it is now: saved to a file, it can be refined on from here, by any side-car.

    The first one is the start itself, as soon as a side-car has taken the job.
    """

    inversion: Inversion


@dataclass(frozen=True, eq=False)
class Refined:
    """The end: the refined inversion, and how good it is where that was judged."""

    inversion: Inversion
    metrics: Metrics | None


RefineEvent = Queued | Waiting | Progress | Preview | Checkpoint | Refined


class Refiner:
    """One refinement, from its start or from where an inversion file left off.

    Args:
        inversion: with its target; if it was interrupted and the preset is the same, it continues exactly there.
        options: those that an interrupted inversion names by default, otherwise the default ones.
        timeout: deadlines in seconds.
        url: address of the side-car, for messages.
    """

    def __init__(self, inversion: Inversion, options: RefineOptions | None, *, timeout: Timeout, url: str) -> None:
        before = inversion.refinement
        chosen = options or (before.options if before is not None and before.reason is None else RefineOptions())
        resumes = before is not None and before.resumable and before.options.preset == chosen.preset
        if inversion.target is None:
            raise ParameterError("a refinement needs its photo, which the inversion does not hold")
        self._inversion, self._options = inversion, chosen
        self._request = RefineRequest(
            generator=inversion.generator,
            domain=inversion.domain,
            target=inversion.target,
            f=inversion.f,
            w_m_plus=inversion.w_m_plus,
            f_o=inversion.f_o,
            options=chosen,
            request_id=request_id(),
        )
        self._state: State | None = None
        if before is not None and resumes:
            self._state = State(
                step=before.step,
                seconds=before.seconds,
                f=inversion.f,
                w_m_plus=inversion.w_m_plus,
                optimiser=before.optimiser,
                terms=before.terms,
            )
        self.finished = False
        self._timeout = timeout
        self._url = url
        self._began = time.monotonic()
        # Most steps that were ever done, and the step in the current attempt.
        self._best = self._step = self._resumed
        self._steps = before.steps if before is not None and resumes else None
        self._taken = False
        self._down_since: float | None = None
        self._failures = 0

    def request(self) -> RefineRequest:
        """The next request."""
        self._step = self._resumed
        return replace(self._request, resume=self._state)

    def remaining(self) -> float | None:
        """Seconds to the deadline of the whole refinement; None without one.

        Raises:
            ServerTimeout: it has passed.
        """
        if self._timeout.refinement is None:
            return None
        left = self._began + self._timeout.refinement - time.monotonic()
        if left <= 0:
            raise ServerTimeout(f"the refinement did not end within {self._timeout.refinement:g} seconds")
        return left

    def take(self, message: Message) -> list[RefineEvent]:
        """Check a message, and return what it means.

        Raises:
            AnswerRefused: it goes back, or has other shapes, or numbers that are not finite or out of range.
        """
        events: list[RefineEvent] = []
        if not self._taken:
            self._taken = True
            events.append(Checkpoint(self._interrupted()))
        match message:
            case Queued():
                events.append(message)
            case Progress():
                self._advance(message.step, at_least=self._step)
                if not (max(message.step, 1) <= message.steps <= MAX_STEPS and 0 <= message.seconds < math.inf):
                    raise AnswerRefused(f"the side-car counts {message.steps} steps, {message.seconds:g} seconds")
                self._steps = message.steps
                events.append(message)
            case Preview():
                events.append(message)
            case State():
                self._keep(message)
                events.append(Checkpoint(self._interrupted()))
            case Finished():
                self._keep(message.state)
                self.finished = True
                refinement = replace(
                    self._account(message.state),
                    reason=message.reason,
                    metrics=message.metrics,
                    start_kept=message.start_kept,
                )
                events.append(Refined(self._moved(message.state, refinement), message.metrics))
        return events

    def pause(self, problem: ServerError) -> float:
        """Return the seconds to wait before the next attempt; raise the problem where there should be none."""
        if not isinstance(problem, (ServerUnavailable, ServerBusy)):
            raise problem
        now = time.monotonic()
        if self._down_since is None:
            self._down_since, self._failures = now - (problem.seconds if isinstance(problem, SidecarSilent) else 0), 0
        is_missing = not self._taken and isinstance(problem, ServerUnavailable)
        limit = self._timeout.connect if is_missing else self._timeout.patience
        self._failures += 1
        seconds = backoff(self._failures)
        if now + seconds - self._down_since > limit:
            if is_missing:
                raise ServerUnavailable(
                    f"no side-car answers at {self._url}: start one with `make serve`, or run `client invert --fast`"
                )
            raise problem
        return seconds

    @property
    def _resumed(self) -> int:
        return self._state.step if self._state is not None else 0

    def _advance(self, step: int, *, at_least: int) -> None:
        if not at_least <= step <= MAX_STEPS:
            raise AnswerRefused(f"the side-car is at step {step} after step {at_least}")
        self._step = max(self._step, step)
        if step > self._best:
            # Only steps that were never done before are progress: a server that falls over each time ends it.
            self._best, self._down_since = step, None

    def _keep(self, state: State) -> None:
        self._advance(state.step, at_least=self._resumed)
        for name in ("f", "w_m_plus"):
            found: Floats = getattr(state, name)
            expected: Floats = getattr(self._request, name)
            if found.shape != expected.shape:
                raise AnswerRefused(f"the side-car sent '{name}' as {list(found.shape)}, not {list(expected.shape)}")
        try:
            check_optimiser({"f": state.f, "w_m_plus": state.w_m_plus})
            check_optimiser(state.optimiser)
            self._account(state)
        except ParameterError as exc:
            raise AnswerRefused(f"the side-car's answer is malformed: {clause(exc)}") from exc
        self._state = state

    def _account(self, state: State) -> Refinement:
        return Refinement(
            options=self._options,
            step=state.step,
            steps=max(self._steps, state.step, 1) if self._steps is not None else None,
            seconds=state.seconds,
            terms=state.terms,
            optimiser=state.optimiser,
        )

    def _interrupted(self) -> Inversion:
        if self._state is None:
            return replace(self._inversion, refinement=Refinement(options=self._options, step=0))
        return self._moved(self._state, self._account(self._state))

    def _moved(self, state: State, refinement: Refinement) -> Inversion:
        method = f"refined:{self._options.preset}"
        moved = replace(self._inversion.editable, f=state.f, w_m_plus=state.w_m_plus)
        return replace(moved, method=method, refinement=refinement)


def refine(refiner: Refiner, transport: RefineTransport) -> Generator[RefineEvent, None, None]:
    """Drive a refinement to its end; closing the generator cancels it."""
    while not refiner.finished:
        try:
            with closing(transport.refine(refiner.request(), timeout=refiner.remaining())) as messages:
                for message in messages:
                    yield from refiner.take(message)
            _check_finished(refiner)
        except ServerError as problem:
            seconds = refiner.pause(problem)
            yield Waiting(str(problem), seconds)
            time.sleep(seconds)


async def refine_async(refiner: Refiner, transport: AsyncRefineTransport) -> AsyncGenerator[RefineEvent, None]:
    """``refine`` over an asynchronous transport."""
    while not refiner.finished:
        try:
            async with aclosing(transport.refine(refiner.request(), timeout=refiner.remaining())) as messages:
                async for message in messages:
                    for event in refiner.take(message):
                        yield event
            _check_finished(refiner)
        except ServerError as problem:
            seconds = refiner.pause(problem)
            yield Waiting(str(problem), seconds)
            await asyncio.sleep(seconds)


def _check_finished(refiner: Refiner) -> None:
    if not refiner.finished:
        raise ServerUnavailable("the side-car ended the refinement without a result")
