"""The engine of one process: some photos at a time, until none is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from client.api import AsyncInverter
from client.batch.ledger import Ledger
from client.batch.maker import Assignment, Maker


async def run(assignment: Assignment, ledger: Ledger, *, progress: Callable[[], object]) -> None:
    """Make the photos left in a ledger; one that cannot be made is marked as failed.

    Args:
        assignment: what to make, and how many photos at a time.
        ledger: is marked as photos are done.
        progress: called after each photo.

    Raises:
        ServerError: the servers stayed away; the photos in progress are still left.
        ClientError: an error that every photo would meet, for example a full disk.
    """
    maker, left = Maker(assignment), ledger.pending()

    async def work() -> None:
        for item in left:
            ledger.mark(item.name, await maker.make(inverter, item))
            progress()

    async with AsyncInverter(**assignment.connection) as inverter:
        tasks = [asyncio.create_task(work()) for _ in range(assignment.concurrency)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
