"""The request id: one name in all servers' logs for everything that a command asks for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

# The client's name in traces.
SERVICE: Final = "unaligned-client"
_current: ContextVar[str] = ContextVar("request", default="")


def request_id() -> str:
    """Return the current id, or a new one."""
    return _current.get() or secrets.token_hex(8)


@contextmanager
def named(name: str = "") -> Iterator[str]:
    """Set the id of the block; a new one by default."""
    chosen = name or secrets.token_hex(8)
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)
