"""The one retry policy: exponential backoff with jitter, until patience ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

from tenacity import RetryCallState, retry_if_exception_type

from client.errors import ServerTimeout, ServerUnavailable

ATTEMPTS: Final = 4
FIRST_BACKOFF: Final = 0.1
LAST_BACKOFF: Final = 5.0


def backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures; random, so that clients do not return all at once."""
    return min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 16), LAST_BACKOFF) * random.uniform(0.5, 1.0)


def policy(
    seconds: float,
    *kinds: type[BaseException],
    attempts: int | None = None,
    since: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Return the arguments of tenacity's ``Retrying`` and ``AsyncRetrying``.

    Args:
        seconds: no attempt begins later than this.
        kinds: exceptions to retry on; ``ServerUnavailable`` by default. Any other ends the loop at once.
        attempts: how many at most; unlimited by default.
        since: the moment from which ``seconds`` count, asked before each pause; the first attempt by default.
    """
    began = time.monotonic()

    def stop(state: RetryCallState) -> bool:
        if attempts is not None and state.attempt_number >= attempts:
            return True
        start = began if since is None else since()
        return time.monotonic() + state.upcoming_sleep - start >= seconds

    return {
        "retry": retry_if_exception_type(kinds or (ServerUnavailable,)),
        "stop": stop,
        "wait": lambda state: backoff(state.attempt_number),
        "reraise": True,
    }


def remaining(seconds: float) -> Callable[[], float]:
    """Return a function for the seconds that are left of a deadline that begins now.

    It raises ``ServerTimeout`` if none are.
    """
    end = time.monotonic() + seconds

    def left() -> float:
        rest = end - time.monotonic()
        if rest <= 0:
            raise ServerTimeout(f"the server gave no answer within {seconds:g} seconds")
        return rest

    return left
