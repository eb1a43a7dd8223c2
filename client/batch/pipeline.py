"""The engine of one process: some photos at a time, until none is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from client.api import AsyncInverter
from client.batch.ledger import Ledger
from client.batch.maker import Maker
from client.batch.manifest import Item


class Pipeline:
    """Makes the photos left in a ledger; one that cannot be made is marked as failed.

    Args:
        maker: makes one photo.
        ledger: is marked as photos are done.
        progress: called after each photo.
    """

    def __init__(self, maker: Maker, ledger: Ledger, *, progress: Callable[[], object]) -> None:
        self._maker, self._ledger, self._progress = maker, ledger, progress

    async def run(self, inverter: AsyncInverter, *, concurrency: int) -> None:
        """Make them, ``concurrency`` at a time.

        Raises:
            ServerError: the servers stayed away; the photos in progress are still left.
            ClientError: an error that every photo would meet, for example a full disk.
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
            self._ledger.mark(item.name, await self._maker.make(inverter, item))
            self._progress()
