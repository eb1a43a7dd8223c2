"""The deadlines of a client, in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from client.errors import ParameterError


@dataclass(frozen=True)
class Timeout:
    """Deadlines in seconds.

    Attributes:
        connect: for the first contact with the server.
        request: for each request after it, from the first attempt to the whole answer, retries included.
        patience: how long to wait for a server that went away or is full, counted from the last progress.
        refinement: for a whole refinement, waiting and queueing included; None is no limit.

    Raises:
        ParameterError: on creation, when a value is not a number above 0 and up to 86400.
    """

    connect: float = 5.0
    request: float = 60.0
    patience: float = 120.0
    refinement: float | None = None

    def __post_init__(self) -> None:
        for value in (self.connect, self.request, self.patience, self.refinement):
            if value is not None and not (math.isfinite(value) and 0 < value <= 86400):
                raise ParameterError(f"invalid timeout {value:g}: expected seconds above 0 and up to 86400")
