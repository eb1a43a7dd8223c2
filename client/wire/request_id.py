"""The name of the work in hand in the servers' logs: one request id for all that is asked for it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

# What traces call this program.
SERVICE: Final = "unaligned-client"
_current: ContextVar[str] = ContextVar("request", default="")


def request_id() -> str:
    """The id of the work in hand; a new one where it has none."""
    return _current.get() or secrets.token_hex(8)


@contextmanager
def named(name: str = "") -> Iterator[str]:
    """Give the work of the block an id, by default a new one."""
    chosen = name or secrets.token_hex(8)
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)
