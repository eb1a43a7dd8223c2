"""The gRPC service ``refine.v1.Refinement``: checks a request, queues its job, streams what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any

import grpc

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from protocol.tracing import tracing
from sidecar.job import Engine, InvalidRequest
from sidecar.service import convert
from sidecar.service.batcher import Batcher, Draining, QueueFull
from sidecar.service.metrics import Meters
from sidecar.service.outbox import Outbox
from sidecar.service.ticket import DRAINING, Ticket

log = logging.getLogger("sidecar")

NAME = "refine.v1.Refinement"
# What traces call this program.
SERVICE = "unaligned-sidecar"
# gRPC's Python client drops what it has not read once an error status is there: so long it has to read.
LINGER_S = 1.0
STARTING = "The side-car is starting: it answers once its networks are loaded."


class RefinementService(refine_pb2_grpc.RefinementServicer):
    """Answers UNAVAILABLE until :meth:`open`, and again once the batcher drains.

    Args:
        meters: counts requests that do not become jobs.
    """

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._engine: Engine | None = None
        self._batcher: Batcher | None = None
        self.is_open = False

    def open(self, engine: Engine, batcher: Batcher) -> None:
        """Answer requests from now on."""
        self._engine, self._batcher = engine, batcher
        self.is_open = True

    def close(self) -> None:
        """Say that no more requests are wanted; the batcher refuses them once it drains."""
        self.is_open = False

    async def Refine(
        self, request: pb.RefineRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.RefineEvent]:
        """See refine.proto."""
        engine, batcher = self._engine, self._batcher
        if engine is None or batcher is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, STARTING)
            return
        outbox = Outbox(asyncio.get_running_loop())
        try:
            batcher.check_room()
            # Decoding and resampling take a while.
            ticket = await asyncio.to_thread(_ticket, request, engine, outbox)
            batcher.submit(ticket)
        except InvalidRequest as problem:
            self._meters.refused("refused")
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))
            return
        except Draining:
            self._meters.refused("unavailable")
            await context.abort(*DRAINING)
            return
        except QueueFull:
            self._meters.refused("full")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "The queue is full; try again later.")
            return
        except Exception:
            log.exception("the request failed")
            self._meters.refused("error")
            await context.abort(grpc.StatusCode.INTERNAL, "The job cannot be opened; the server's log says why.")
            return
        span = tracing(SERVICE).start(
            "refine", kind="server", carrier=_headers(context), request_id=ticket.request_id, steps=ticket.job.steps
        )
        try:
            while not ticket.closed:
                for event in await outbox.take():
                    yield event
            for event in outbox.rest():
                yield event
        finally:
            failed = ticket.failure[0].name if ticket.failure else "" if ticket.closed else "CANCELLED"
            span.end(failed=failed, step=ticket.job.step)
            # Also where the client hung up or its deadline passed: the stream is then cancelled here.
            if not ticket.closed:
                batcher.cancel(ticket)
        if ticket.failure is not None:
            await asyncio.sleep(LINGER_S)
            await context.abort(*ticket.failure)


def _headers(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def _ticket(request: pb.RefineRequest, engine: Engine, outbox: Outbox) -> Ticket:
    """The job of a request.

    Raises:
        InvalidRequest: no server, or not this one, would take it.
    """
    if request.domain != engine.domain:
        raise InvalidRequest(f"This side-car serves the domain {engine.domain}, not {request.domain[:40]!r}.")
    if request.generator != engine.generator:
        sentence = f"The inversion belongs to generator {request.generator[:40]!r}, and this is {engine.generator}."
        raise InvalidRequest(sentence)
    request_id = convert.request_id(request) or secrets.token_hex(8)
    cadence = convert.cadence(request.options)
    options = convert.options(request.options)
    start = convert.start(request, resolution=engine.resolution)
    job = engine.open(start, options, convert.resume(request))
    return Ticket(job=job, start=start, cadence=cadence, outbox=outbox, request_id=request_id)
