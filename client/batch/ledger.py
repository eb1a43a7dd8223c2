"""The ledger of a batch: an SQLite file beside the outputs that says what is done, what failed and why, what is left.

A photo is marked as done after its files are there whole, so a run that is killed at any moment makes it again, to the
same files, or not at all. One process holds the ledger at a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from client.batch.manifest import Item
from client.errors import OutputError, ParameterError
from client.files.atomic import shown

State = Literal["pending", "done", "failed"]
SCHEMA: Final = 1
_CHUNK: Final = 256
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS batch (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS photos (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    crop TEXT,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL,
    sentence TEXT
);
CREATE INDEX IF NOT EXISTS by_state ON photos (state, number);
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a photo, in how many seconds; ``sentence`` says why it failed."""

    state: Literal["done", "failed"]
    seconds: float
    sentence: str | None = None


@dataclass(frozen=True)
class Entry:
    """A photo in the ledger: how often it was tried, how long the last try took, and why it failed."""

    item: Item
    state: State
    attempts: int
    seconds: float | None
    sentence: str | None


class Ledger:
    """The file; a context manager.

    Args:
        path: made where it is missing.

    Raises:
        OutputError: it cannot be written, is no ledger, or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            # Held by one process from the first access on; without shared memory beside the file.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_TABLES)
        except (sqlite3.Error, OSError) as problem:
            raise self._trouble(problem) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have it."""
        with suppress(sqlite3.Error):
            self._database.close()

    @property
    def plan(self) -> dict[str, Any] | None:
        """What was begun here, or None where nothing was."""
        row = next(self._rows("SELECT value FROM batch WHERE key = 'plan'"), None)
        try:
            return None if row is None else dict(json.loads(row[0]))
        except (ValueError, TypeError):
            raise OutputError(f"{shown(self._path)} is no ledger of this version.") from None

    def begin(self, plan: dict[str, Any], items: Iterable[Item]) -> bool:
        """Write what is to be done, at once or not at all; returns whether there is anything.

        Raises:
            ParameterError: two photos would have their results in one folder.
        """
        try:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT INTO photos (name, path, crop) VALUES (?, ?, ?)", ((i.name, i.path, i.crop) for i in items)
            )
            if not sum(self.counts().values()):
                self._rollback()
                return False
            values = {"plan": json.dumps(plan), "schema": str(SCHEMA)}
            self._database.executemany("INSERT INTO batch VALUES (?, ?)", values.items())
            self._database.execute("COMMIT")
        except sqlite3.IntegrityError:
            self._rollback()
            raise ParameterError("Two photos of the batch have one name: give each a name of its own.") from None
        except sqlite3.Error as problem:
            self._rollback()
            raise self._trouble(problem) from None
        except BaseException:
            self._rollback()
            raise
        return True

    def pending(self) -> Iterator[Item]:
        """What is left when it is asked for, in order, a few at a time."""
        last = 0
        query = (
            "SELECT number, name, path, crop FROM photos WHERE state = 'pending' AND number > ? ORDER BY number LIMIT ?"
        )
        while rows := list(self._rows(query, last, _CHUNK)):
            last = rows[-1][0]
            yield from (Item(*row[1:]) for row in rows)

    def mark(self, name: str, outcome: Outcome) -> None:
        """Say what became of a photo by its name: its files are there, or it cannot be made, and why."""
        self._change(
            "UPDATE photos SET state = ?, seconds = ?, sentence = ?, attempts = attempts + 1 WHERE name = ?",
            *(outcome.state, outcome.seconds, outcome.sentence, name),
        )

    def retry_failed(self) -> int:
        """Put what failed back to what is left; returns how many."""
        return self._change("UPDATE photos SET state = 'pending', sentence = NULL WHERE state = 'failed'")

    def counts(self) -> dict[State, int]:
        """Photos in each state."""
        found = dict(self._rows("SELECT state, count(*) FROM photos GROUP BY state"))
        states: tuple[State, ...] = ("pending", "done", "failed")
        return {state: found.get(state, 0) for state in states}

    def entries(self, state: State, *, order: Literal["number", "seconds DESC"] = "number", limit: int) -> list[Entry]:
        """The first photos of a state."""
        query = (
            "SELECT name, path, crop, state, attempts, seconds, sentence FROM photos WHERE state = ? "
            f"ORDER BY {order} LIMIT ?"
        )
        return [Entry(Item(*row[:3]), *row[3:]) for row in self._rows(query, state, limit)]

    def _change(self, query: str, *values: Any) -> int:
        try:
            return self._database.execute(query, values).rowcount
        except sqlite3.Error as problem:
            raise self._trouble(problem) from None

    def _rows(self, query: str, *values: Any) -> Iterator[Any]:
        try:
            yield from self._database.execute(query, values)
        except sqlite3.Error as problem:
            raise self._trouble(problem) from None

    def _rollback(self) -> None:
        with suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")

    def _trouble(self, problem: Exception) -> OutputError:
        what = shown(self._path)
        if "locked" in str(problem):
            return OutputError(f"Another process works on {what}.")
        if "not a database" in str(problem):
            return OutputError(f"{what} is no ledger of a batch.")
        return OutputError(f"{what} cannot be written: {shown(str(problem)).rstrip('.')}.")
