"""Photos through the servers, some at a time, until none is left or the servers stay away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client.batch.ledger import Ledger
from client.batch.manifest import Item
from client.batch.plan import Plan
from client.errors import (
    AnswerRefused,
    PhotoError,
    RefinementDiverged,
    RequestRejected,
    ServerBusy,
    ServerTimeout,
    ServerUnavailable,
)
from client.inverter import AsyncInverter

# Of the servers, not of the photo: it is tried again.
TRANSIENT: Final = (ServerUnavailable, ServerBusy, ServerTimeout)
# Of the photo: it has failed, and the others go on. Everything else would be the same for the next photo.
OF_THE_PHOTO: Final = (PhotoError, RequestRejected, RefinementDiverged, AnswerRefused)
_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


@dataclass
class Patience:
    """How long the servers are waited for: so many seconds without a photo that was done."""

    seconds: float
    since: float = field(default_factory=time.monotonic)

    def renew(self) -> None:
        """A photo was done."""
        self.since = time.monotonic()

    def over(self, pause: float) -> bool:
        """Whether another pause would be too long."""
        return time.monotonic() + pause - self.since > self.seconds


class Pipeline:
    """Makes what is left in a ledger; a photo that cannot be made is marked as failed.

    Args:
        plan: what to make of each.
        ledger: is marked as photos are done.
        folder: of the results.
        patience: seconds without a photo done that servers which went away are waited for.
        progress: called after each photo.
    """

    def __init__(
        self, plan: Plan, ledger: Ledger, folder: Path, *, patience: float, progress: Callable[[], object]
    ) -> None:
        self._plan, self._ledger, self._folder = plan, ledger, folder
        self._waits, self._progress = Patience(patience), progress

    async def run(self, inverter: AsyncInverter, *, concurrency: int) -> None:
        """Make them, so many at a time.

        Raises:
            ServerError: the servers stayed away; the photos in progress are still left.
            ClientError: what would be the same for every photo, for example a full disk.
        """
        left = self._ledger.pending()
        tasks = [asyncio.create_task(self._work(inverter, left)) for _ in range(concurrency)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, inverter: AsyncInverter, left: Iterator[Item]) -> None:
        for item in left:
            began = time.monotonic()
            try:
                await self._patiently(inverter, item)
            except OF_THE_PHOTO as problem:
                self._ledger.failed(item, time.monotonic() - began, str(problem))
            else:
                self._ledger.done(item, time.monotonic() - began)
            # Either way the servers answered.
            self._waits.renew()
            self._progress()

    async def _patiently(self, inverter: AsyncInverter, item: Item) -> None:
        pause = _PAUSE
        while True:
            try:
                await self._plan.make(inverter, item, self._folder)
            except TRANSIENT:
                if self._waits.over(pause):
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return
