"""The engine of a cluster: Ray Data hands parts of what is left to actors, each with its own connection.

Photos and results lie on a file system that the workers share. The driver alone holds the ledger: an actor that dies
costs no more than the photos it had not reported, which another makes again, to the same files.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from client import errors
from client.api import AsyncInverter
from client.batch.ledger import Ledger, Outcome
from client.batch.maker import Assignment, Maker
from client.batch.manifest import Item
from client.errors import ClientError, ParameterError, ServerError
from client.text import quoted, shown

# Photos that one data set names, so that memory does not grow with the batch.
_CHUNK: Final = 10_000
# What an actor takes at a time, of what it has under way; only its end is waited for.
_TURNS: Final = 4
_STORE_BYTES: Final = 100 * 2**20
_CONNECT_S: Final = 5
_KINDS: Final = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ClientError)
}


class Worker:
    """An actor: takes rows of photos, and returns what became of each. ``of`` makes the class for an assignment."""

    assignment: Assignment

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._maker = Maker(self.assignment)
        self._inverter: AsyncInverter | None = None

    @classmethod
    def of(cls, assignment: Assignment) -> type[Worker]:
        """Return the actors' class; as an argument it would be in Ray's store, whose loss an actor does not survive."""
        return type("Worker", (cls,), {"assignment": assignment})

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Make some photos."""
        names = ("name", "path", "crop")
        items = [
            Item(name, os.fsdecode(path), crop or None)
            for name, path, crop in zip(*(rows[n] for n in names), strict=True)
        ]
        found = self._runner.run(self._all(items))
        columns = ("stage", "seconds", "sentence", "kind")
        return {**{name: rows[name] for name in names}, **dict(zip(columns, map(list, zip(*found, strict=True))))}  # noqa: B905

    async def _all(self, items: list[Item]) -> list[tuple[str, float, str, str]]:
        if self._inverter is None:
            self._inverter = AsyncInverter(**self.assignment.connection)
        inverter, room = self._inverter, asyncio.Semaphore(self.assignment.concurrency)
        stopped: list[ClientError] = []

        async def one(item: Item) -> tuple[str, float, str, str]:
            async with room:
                if stopped:
                    return "left", 0.0, "", ""
                try:
                    outcome = await self._maker.make(inverter, item)
                except ClientError as problem:
                    stopped.append(problem)
                    return "left", 0.0, str(problem), type(problem).__name__
            return outcome.stage, outcome.seconds, outcome.sentence or "", ""

        return list(await asyncio.gather(*(one(item) for item in items)))


def run(
    assignment: Assignment, ledger: Ledger, *, workers: int, address: str | None, progress: Callable[[], object]
) -> None:
    """Make what is left in a ledger.

    Args:
        assignment: what the actors get.
        ledger: is marked as photos are done.
        workers: actors.
        address: address of a Ray cluster; $RAY_ADDRESS by default; ``local`` starts one on this machine.
        progress: called after each photo.

    Raises:
        ParameterError: Ray is not installed, or no cluster is named.
        ServerError: there is no such cluster, or the servers stayed away; the photos in progress are still left.
        ClientError: an error that every photo would meet, for example a full disk.
    """
    if importlib.util.find_spec("ray") is None:
        raise ParameterError("--engine ray needs Ray: pip install 'unaligned[client,ray]'")
    if not (where := address or os.environ.get("RAY_ADDRESS")):
        raise ParameterError(
            "--engine ray needs a cluster: pass --address with its address, or local to start one on this machine"
        )
    # Workers have other working directories.
    access = assignment.connection["access"].absolute()
    connection = {**assignment.connection, "access": access}
    assignment = replace(assignment, folder=assignment.folder.absolute(), connection=connection)
    left = ledger.pending()
    with _cluster(where, workers):
        while chunk := list(islice(left, _CHUNK)):
            # Closed before the cluster is: Ray's own thread would connect once more.
            with closing(_rows(assignment, chunk, workers)) as rows:
                for row in rows:
                    if row["kind"]:
                        raise _KINDS.get(row["kind"], ClientError)(row["sentence"])
                    if row["stage"] != "left":
                        outcome = Outcome(row["stage"], float(row["seconds"]), row["sentence"] or None)
                        ledger.mark(row["name"], outcome)
                        progress()


def _rows(assignment: Assignment, items: list[Item], workers: int) -> Generator[dict[str, Any], None, None]:
    import ray.data
    from ray.exceptions import RayError

    size = max(1, min(_TURNS * assignment.concurrency, -(-len(items) // workers)))
    rows = [
        {"name": item.name, "path": os.fsencode(Path(item.path).absolute()), "crop": item.crop or ""} for item in items
    ]
    made = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
        Worker.of(assignment), compute=ray.data.ActorPoolStrategy(size=workers), batch_size=size, batch_format="numpy"
    )
    try:
        yield from made.iter_rows()
    except RayError as problem:
        raise ServerError(f"the Ray cluster failed: {shown(str(problem), limit=300).rstrip('.')}") from problem


def _check(where: str) -> None:
    """Fail at once where nobody answers: Ray would try for minutes.

    Raises:
        ServerError: nobody does.
    """
    host, _, port = where.rpartition(":")
    if "/" in where or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as problem:
        raise ServerError(f"no Ray cluster answers at {quoted(where)}") from problem


@contextmanager
def _cluster(where: str, workers: int) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own output has no place in a report, nor beside an error.
    _check(where)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        import ray
        from ray.data import DataContext

        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        own: dict[str, Any] = {
            "num_cpus": max(workers, os.cpu_count() or 1),
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
        try:
            ray.init(address=where, **quiet, **(own if where == "local" else {}))
        except Exception as problem:
            reason = shown(str(problem), limit=200).rstrip(".")
            raise ServerError(f"cannot use the Ray cluster {quoted(where)}: {reason}") from problem
        try:
            context = DataContext.get_current()
            context.enable_progress_bars = False
            context.print_on_execution_start = False
            yield
        finally:
            ray.shutdown()
