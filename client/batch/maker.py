"""One photo through the servers, until it is done, has failed, or the servers stay away: the same for every engine."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from client.api import AsyncInverter
from client.batch.ledger import Outcome
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

# Of the servers, not of the photo: it is tried again.
TRANSIENT: Final = (ServerUnavailable, ServerBusy, ServerTimeout)
# Of the photo: it has failed, and the others go on. Everything else would be the same for the next photo.
OF_THE_PHOTO: Final = (PhotoError, RequestRejected, RefinementDiverged, AnswerRefused)
_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Maker:
    """Makes photos; servers that go away are waited for.

    Args:
        plan: what to make of each.
        folder: of the results.
        patience: so many seconds without an answer.
    """

    def __init__(self, plan: Plan, folder: Path, *, patience: float) -> None:
        self._plan, self._folder, self._patience = plan, folder, patience
        self._answered = time.monotonic()

    async def make(self, inverter: AsyncInverter, item: Item) -> Outcome:
        """Make one.

        Raises:
            ServerError: the servers stayed away.
            ClientError: what would be the same for every photo, for example a full disk.
        """
        began = time.monotonic()
        try:
            await self._patiently(inverter, item)
        except OF_THE_PHOTO as problem:
            return self._ended(Outcome("failed", time.monotonic() - began, str(problem)))
        return self._ended(Outcome("done", time.monotonic() - began))

    def _ended(self, outcome: Outcome) -> Outcome:
        # Either way the servers answered.
        self._answered = time.monotonic()
        return outcome

    async def _patiently(self, inverter: AsyncInverter, item: Item) -> None:
        pause = _PAUSE
        while True:
            try:
                await self._plan.make(inverter, item, self._folder)
            except TRANSIENT:
                if time.monotonic() + pause - self._answered > self._patience:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return
