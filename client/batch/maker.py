"""One photo through the servers, until it is done or failed, or the servers stay away: the same for every engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from client.api import AsyncInverter
from client.batch.ledger import Outcome
from client.batch.manifest import Item
from client.batch.plan import OF_THE_PHOTO, Plan
from client.errors import ClientError, ServerBusy, ServerTimeout, ServerUnavailable
from client.text import shown
from client.wire.retry import async_retrying

# The servers' fault, not the photo's: try again.
TRANSIENT: Final = (ServerUnavailable, ServerBusy, ServerTimeout)


class Maker:
    """Makes photos; servers that go away are waited for.

    Args:
        plan: what to make of each.
        folder: of the results.
        patience: seconds to wait without any answer.
    """

    def __init__(self, plan: Plan, folder: Path, *, patience: float) -> None:
        self._plan, self._folder, self._patience = plan, folder, patience
        self._answered = time.monotonic()

    async def make(self, inverter: AsyncInverter, item: Item) -> Outcome:
        """Make one.

        Raises:
            ServerError: the servers stayed away.
            ClientError: an error that every photo would meet, for example a full disk.
        """
        began = time.monotonic()
        try:
            note = await self._patiently(inverter, item)
        except OF_THE_PHOTO as problem:
            return self._ended(Outcome("failed", time.monotonic() - began, str(problem)))
        except ClientError:
            raise
        except Exception as problem:
            # Foreign bytes may upset anything: one photo must not end the batch.
            what = f"unexpected {type(problem).__name__}: {shown(str(problem), limit=300)}"
            return self._ended(Outcome("failed", time.monotonic() - began, what))
        return self._ended(Outcome("done", time.monotonic() - began, note or None))

    def _ended(self, outcome: Outcome) -> Outcome:
        # Either way the servers answered.
        self._answered = time.monotonic()
        return outcome

    async def _patiently(self, inverter: AsyncInverter, item: Item) -> str:
        note = ""
        async for attempt in async_retrying(self._patience, *TRANSIENT, since=lambda: self._answered):
            with attempt:
                note = await self._plan.make(inverter, item, self._folder)
        return note
