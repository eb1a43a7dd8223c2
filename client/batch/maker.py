"""One photo through the servers, until it is done or failed, or the servers stay away: the same for every engine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tenacity import AsyncRetrying

from client.api import AsyncInverter
from client.batch.ledger import Outcome
from client.batch.manifest import Item
from client.batch.plan import OF_THE_PHOTO, Plan
from client.errors import ClientError, ServerBusy, ServerTimeout, ServerUnavailable
from client.text import shown
from client.wire.retry import policy

# The servers' fault, not the photo's: try again.
TRANSIENT: Final = (ServerUnavailable, ServerBusy, ServerTimeout)


@dataclass(frozen=True)
class Assignment:
    """What an engine gets.

    Attributes:
        plan: what to make of each photo.
        folder: folder of the results.
        connection: the arguments of an inverter.
        patience: seconds to wait for servers that do not answer.
        concurrency: photos at a time.
    """

    plan: Plan
    folder: Path
    connection: dict[str, Any]
    patience: float
    concurrency: int


class Maker:
    """Makes photos; servers that go away are waited for."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
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
        note, wanted = "", self._assignment
        async for attempt in AsyncRetrying(**policy(wanted.patience, *TRANSIENT, since=lambda: self._answered)):
            with attempt:
                note = await wanted.plan.make(inverter, item, wanted.folder)
        return note
