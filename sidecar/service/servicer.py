"""The gRPC service ``refine.v1.Refinement``: checks a request, queues its job and streams the events."""

from __future__ import annotations

import asyncio
import re
import secrets
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

from protocol import codec, refine_pb2_grpc
from protocol import refine_pb2 as pb
from protocol.limits import ContractError, shortened
from protocol.tracing import tracing
from sidecar.job import Engine, Start
from sidecar.service.batcher import Batcher
from sidecar.service.failures import Starting, Unread
from sidecar.service.metrics import Meters
from sidecar.service.outbox import Outbox
from sidecar.service.photo import square
from sidecar.service.ticket import Ticket

NAME = "refine.v1.Refinement"
# The service name in traces.
SERVICE = "unaligned-sidecar"
# gRPC's Python client drops unread messages once an error status arrives; this gives it time to read them.
LINGER_S = 1.0
UNREAD_S = 60.0
ALIVE_S = 5.0
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RefinementService(refine_pb2_grpc.RefinementServicer):
    """Answers UNAVAILABLE before :meth:`open` and once the batcher drains.

    Args:
        meters: counts results that nobody read.
        unread_s: how long a result is kept for a client that does not read.
    """

    def __init__(self, meters: Meters, *, unread_s: float = UNREAD_S) -> None:
        self._meters, self._unread_s = meters, unread_s
        self._ending: set[asyncio.Task[None]] = set()
        self._engine: Engine | None = None
        self._batcher: Batcher | None = None
        self.is_open = False

    def open(self, engine: Engine, batcher: Batcher) -> None:
        """Start to answer requests."""
        self._engine, self._batcher = engine, batcher
        self.is_open = True

    def close(self) -> None:
        """Stop reporting readiness; the batcher refuses requests once it drains."""
        self.is_open = False

    async def Refine(
        self, request: pb.RefineRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.RefineEvent]:
        """See refine.proto."""
        engine, batcher = self._engine, self._batcher
        if engine is None or batcher is None:
            raise Starting(counted=True)
        outbox = Outbox(asyncio.get_running_loop())
        batcher.check_room()
        # Decoding and resampling are slow.
        box = [request]
        del request  # up to 64 MiB, which only the thread holds
        ticket = await asyncio.to_thread(_opened, box, engine, outbox)
        batcher.submit(ticket)
        traces = tracing(SERVICE)
        span = traces.start(
            "refine", kind="server", carrier=_headers(context), request_id=ticket.request_id, steps=ticket.job.steps
        )
        expiry = asyncio.create_task(self._expire(outbox, asyncio.current_task(), context))
        try:
            while not ticket.closed:
                for event in await outbox.take(seconds=ALIVE_S):
                    yield event
            for event in outbox.rest():
                yield event
        finally:
            expiry.cancel()
            failed = ticket.failure.code.name if ticket.failure else "" if ticket.closed else "CANCELLED"
            span.set_attribute("step", ticket.job.step)
            traces.end(span, failed=failed)
            # Reached as well when the client hangs up or its deadline passes, which cancels the stream.
            if not ticket.closed:
                batcher.cancel(ticket)
        if ticket.failure is not None:
            await asyncio.sleep(LINGER_S)
            raise ticket.failure

    async def _expire(self, outbox: Outbox, reader: asyncio.Task[Any] | None, context: Any) -> None:
        """Let go of a job that has ended, and whose client does not read."""
        await outbox.ended.wait()
        await asyncio.sleep(self._unread_s + LINGER_S)
        assert reader is not None
        self._meters.unread()
        reader.cancel()
        # Queued behind what is not read: a client that resumes reading gets it, and nobody waits for it.
        ending = asyncio.create_task(_abort(context))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


async def _abort(context: Any) -> None:
    with suppress(Exception):
        await context.abort(Unread.code, Unread.sentence)


def _headers(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def _opened(box: list[pb.RefineRequest], engine: Engine, outbox: Outbox) -> Ticket:
    """The job of the request in the box; nothing else keeps the request, not even the traceback of an error."""
    try:
        return _ticket(box.pop(), engine, outbox)
    except Exception as exc:
        problem: BaseException | None = exc
        while problem is not None:
            traceback.clear_frames(problem.__traceback__)
            problem = problem.__cause__ or problem.__context__
        raise


def _ticket(message: pb.RefineRequest, engine: Engine, outbox: Outbox) -> Ticket:
    """The job of a request.

    Raises:
        ContractError: the request is invalid, or meant for another side-car.
    """
    if message.domain != engine.domain:
        raise ContractError(f"unknown domain {shortened(message.domain)}: this side-car serves {engine.domain}")
    if message.generator != engine.generator:
        whose = shortened(message.generator)
        raise ContractError(f"the inversion belongs to generator {whose}: this side-car serves {engine.generator}")
    if message.request_id and not _ID.fullmatch(message.request_id):
        raise ContractError("invalid request_id: expected at most 64 characters of A-Z, a-z, 0-9, `.`, `_` and `-`")
    request = codec.from_request(message)
    target = square(message, resolution=engine.resolution)
    start = Start(target=target, f=request.f, w_m_plus=request.w_m_plus, f_o=request.f_o)
    return Ticket(
        job=engine.open(start, request.options, request.resume),
        start=start,
        options=request.options,
        outbox=outbox,
        request_id=request.request_id or secrets.token_hex(8),
    )
