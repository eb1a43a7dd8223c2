"""A job of the service and the outbox for its events."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from protocol.options import Options
from sidecar.job import Job, Start
from sidecar.service.failures import Failure
from sidecar.service.outbox import Outbox


@dataclass(eq=False)
class Ticket:
    """A job and the outbox for its events.

    Attributes:
        failure: why the stream ends without ``Done``; set before the last wake-up of the outbox.
        kept: when it was started, or its last checkpoint sent.
        closed: whether the outbox is complete.
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
    kept: float = field(default_factory=time.monotonic)
