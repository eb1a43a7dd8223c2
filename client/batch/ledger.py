"""The ledger of a batch: an SQLite file beside the results that records what is done, what failed and why.

A photo is marked as done after its files are written, so a run that is killed at any moment makes it again, to the same
files, or not at all. One process holds the ledger at a time.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from client.batch.manifest import Item
from client.errors import OutputError, ParameterError
from client.text import quoted, reason

Stage = Literal["pending", "done", "failed"]
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
    """What became of a photo, in how many seconds; ``sentence`` says why it failed, or what is odd about it."""

    stage: Literal["done", "failed"]
    seconds: float
    sentence: str | None = None


@dataclass(frozen=True)
class Entry:
    """A photo in the ledger: how often it was tried, how long the last try took, and what its outcome says."""

    item: Item
    stage: Stage
    attempts: int
    seconds: float | None
    sentence: str | None


class Ledger:
    """The open file; a context manager.

    Args:
        path: created if missing.

    Raises:
        OutputError: it cannot be written, is not a ledger, or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            # One process holds it from the first access on, without shared memory beside the file.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_TABLES)
        except (sqlite3.Error, OSError) as problem:
            raise self._trouble(problem) from problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file to other processes."""
        with suppress(sqlite3.Error):
            self._database.close()

    @property
    def plan(self) -> dict[str, Any] | None:
        """The options that the batch began with; None if there is no batch."""
        row = next(self._rows("SELECT value FROM batch WHERE key = 'plan'"), None)
        try:
            return None if row is None else dict(json.loads(row[0]))
        except (ValueError, TypeError) as problem:
            raise OutputError(f"cannot read {quoted(self._path)}: not a ledger of this version") from problem

    def begin(self, plan: dict[str, Any], items: Iterable[Item]) -> bool:
        """Write what is to be done, whole or not at all; return whether there is anything.

        Raises:
            ParameterError: two photos have the same name, and so the same folder for results.
        """
        try:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT INTO photos (name, path, crop) VALUES (?, ?, ?)",
                ((i.name, _stored(i.path), i.crop) for i in items),
            )
            if not sum(self.counts().values()):
                self._rollback()
                return False
            values = {"plan": json.dumps(plan), "schema": str(SCHEMA)}
            self._database.executemany("INSERT INTO batch VALUES (?, ?)", values.items())
            self._database.execute("COMMIT")
        except sqlite3.IntegrityError as problem:
            self._rollback()
            raise ParameterError(
                "two photos of the batch have the same name: give each its own in the .jsonl file"
            ) from problem
        except sqlite3.Error as problem:
            self._rollback()
            raise self._trouble(problem) from problem
        except BaseException:
            self._rollback()
            raise
        return True

    def pending(self) -> Iterator[Item]:
        """Yield what is left, in order, a few at a time."""
        last = 0
        query = (
            "SELECT number, name, path, crop FROM photos WHERE state = 'pending' AND number > ? ORDER BY number LIMIT ?"
        )
        while rows := list(self._rows(query, last, _CHUNK)):
            last = rows[-1][0]
            yield from (_item(*row[1:]) for row in rows)

    def mark(self, name: str, outcome: Outcome) -> None:
        """Record what became of a photo: its files are written, or it cannot be made, and why."""
        self._change(
            "UPDATE photos SET state = ?, seconds = ?, sentence = ?, attempts = attempts + 1 WHERE name = ?",
            *(outcome.stage, outcome.seconds, outcome.sentence, name),
        )

    def retry_failed(self) -> int:
        """Put failed photos back to those left; return how many."""
        return self._change("UPDATE photos SET state = 'pending', sentence = NULL WHERE state = 'failed'")

    def counts(self) -> dict[Stage, int]:
        """Return the number of photos in each stage."""
        found = dict(self._rows("SELECT state, count(*) FROM photos GROUP BY state"))
        stages: tuple[Stage, ...] = ("pending", "done", "failed")
        return {stage: found.get(stage, 0) for stage in stages}

    def entries(
        self,
        stage: Stage,
        *,
        order: Literal["number", "seconds DESC"] = "number",
        limit: int,
        with_sentence: bool = False,
    ) -> list[Entry]:
        """Return the first photos of a stage; only those with a sentence on request."""
        also = " AND sentence IS NOT NULL" if with_sentence else ""
        query = (
            "SELECT name, path, crop, state, attempts, seconds, sentence FROM photos "
            f"WHERE state = ?{also} ORDER BY {order} LIMIT ?"
        )
        return [Entry(_item(*row[:3]), *row[3:]) for row in self._rows(query, stage, limit)]

    def _change(self, query: str, *values: Any) -> int:
        try:
            return self._database.execute(query, values).rowcount
        except sqlite3.Error as problem:
            raise self._trouble(problem) from problem

    def _rows(self, query: str, *values: Any) -> Iterator[Any]:
        try:
            yield from self._database.execute(query, values)
        except sqlite3.Error as problem:
            raise self._trouble(problem) from problem

    def _rollback(self) -> None:
        with suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")

    def _trouble(self, problem: Exception) -> OutputError:
        what = quoted(self._path)
        if "locked" in str(problem):
            return OutputError(f"cannot open {what}: another process is working on this batch")
        if "not a database" in str(problem):
            return OutputError(f"cannot open {what}: not the ledger of a batch")
        return OutputError(f"cannot write {what}: {reason(problem)}")


def _stored(path: str) -> str | bytes:
    """Return a path as the ledger keeps it: as bytes where it is not UTF-8."""
    data = os.fsencode(path)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _item(name: str, path: str | bytes, crop: str | None) -> Item:
    if "/" in name or name in ("", ".", ".."):
        raise OutputError(f"cannot continue the batch: {quoted(name)} in its ledger is not the name of a folder")
    return Item(name, os.fsdecode(path), crop)
