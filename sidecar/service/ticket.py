"""A job of the service with where its events go."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from protocol.options import Options
from sidecar.job import Job, Start
from sidecar.service.failures import Failure
from sidecar.service.outbox import Outbox


@dataclass(eq=False)
class Ticket:
    """A job with where its events go.

    Attributes:
        failure: set before the outbox is woken for the last time, where the stream ends without ``Done``.
        closed: nothing more will be put into the outbox.
    """

    job: Job
    start: Start
    options: Options
    outbox: Outbox
    request_id: str
    failure: Failure | None = None
    closed: bool = False
    cancelled: bool = False
    position: int | None = None
    arrived: float = field(default_factory=time.monotonic)
    checkpointed: int = -1
