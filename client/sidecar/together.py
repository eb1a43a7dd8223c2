"""Several refinements at a time: their events come as one stream, and the side-car runs them as one batch.

``refine_together`` runs them in threads, ``refine_together_async`` in tasks. Both keep ``FACES_AT_A_TIME`` going at
most; the next begins when one ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from contextvars import copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from client.errors import AnswerRefused, ClientError, RefinementDiverged, RequestRejected
from client.limits import at_a_time
from client.sidecar.resume import Refined, RefineEvent, Refiner, refine, refine_async
from client.sidecar.transport import AsyncRefineTransport, RefineTransport

# Errors of one refinement alone: the others go on, and those that wait still begin.
_OWN: Final = (RefinementDiverged, RequestRejected, AnswerRefused)
# How long a job may take to hear that it is cancelled.
_LEAVE_S: Final = 2.0
# Ctrl-C that comes just before a wait does not end it.
_HEED_S: Final = 1.0
Begin = Callable[[], Refiner]


@dataclass(frozen=True)
class Failed:
    """The refinement ended without a result; the others continue."""

    problem: ClientError


Update = tuple[int, RefineEvent | Failed]


class _Turns:
    """Which refinements have not begun, and what keeps them from beginning."""

    def __init__(self, jobs: Sequence[Begin]) -> None:
        self._waiting: SimpleQueue[tuple[int, Begin]] = SimpleQueue()
        for job in enumerate(jobs):
            self._waiting.put(job)
        self._trouble: ClientError | None = None

    def next(self) -> tuple[int, Begin] | None:
        """Return the next one and its place; None where none is left."""
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None

    def check(self) -> None:
        """Raise what every other refinement would meet, too."""
        if self._trouble is not None:
            raise self._trouble

    def failed(self, problem: ClientError) -> Failed:
        """Return the last event of one that failed."""
        if not isinstance(problem, _OWN):
            self._trouble = problem
        return Failed(problem)


def refine_together(jobs: Sequence[Begin], transport: RefineTransport, *, owned: bool) -> Generator[Update, None, None]:
    """Yield the events of each refinement with its place in ``jobs``; closing the generator cancels them all.

    Args:
        jobs: each makes a ``Refiner`` when its turn comes.
        transport: to the side-car.
        owned: whether to close the transport at the end, which cancels jobs at once; otherwise they end at their next
            event.
    """
    updates: SimpleQueue[tuple[int, RefineEvent | Failed | BaseException]] = SimpleQueue()
    turns, stopped = _Turns(jobs), threading.Event()

    def work() -> None:
        while not stopped.is_set() and (turn := turns.next()) is not None:
            place, begin = turn
            try:
                turns.check()
                with closing(refine(begin(), transport)) as events:
                    for event in events:
                        updates.put((place, event))
                        if stopped.is_set():
                            return
            except ClientError as problem:
                updates.put((place, turns.failed(problem)))
            except BaseException as problem:
                updates.put((place, problem))
                return

    # Daemons, so that none of them keeps a process that ends.
    threads = [
        threading.Thread(target=copy_context().run, args=(work,), daemon=True) for _ in range(at_a_time(len(jobs)))
    ]
    try:
        for thread in threads:
            thread.start()
        left = len(jobs)
        while left:
            try:
                place, event = updates.get(timeout=_HEED_S)
            except Empty:
                continue
            if isinstance(event, BaseException):
                raise event
            left -= isinstance(event, Refined | Failed)
            yield place, event
    finally:
        stopped.set()
        if owned:
            transport.close()
            for thread in threads:
                thread.join(_LEAVE_S)


async def refine_together_async(
    jobs: Sequence[Begin], transport: AsyncRefineTransport, *, owned: bool
) -> AsyncGenerator[Update, None]:
    """``refine_together`` over an asynchronous transport."""
    updates: asyncio.Queue[tuple[int, RefineEvent | Failed | Exception]] = asyncio.Queue()
    turns = _Turns(jobs)

    async def work() -> None:
        while (turn := turns.next()) is not None:
            place, begin = turn
            try:
                turns.check()
                async with aclosing(refine_async(begin(), transport)) as events:
                    async for event in events:
                        await updates.put((place, event))
            except ClientError as problem:
                await updates.put((place, turns.failed(problem)))
            except Exception as problem:
                await updates.put((place, problem))
                return

    tasks = [asyncio.create_task(work()) for _ in range(at_a_time(len(jobs)))]
    try:
        left = len(jobs)
        while left:
            place, event = await updates.get()
            if isinstance(event, Exception):
                raise event
            left -= isinstance(event, Refined | Failed)
            yield place, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if owned:
            await transport.close()
