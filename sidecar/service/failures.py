"""How requests and jobs fail, and the interceptor that turns failures into a status, a metric and a log line."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, ClassVar

import grpc

from protocol.limits import ContractError
from protocol.status import Reason, trailing
from sidecar.service.metrics import Meters

log = logging.getLogger("sidecar")
Next = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Failure(Exception):
    """A stream that ends without its Done.

    Args:
        counted: whether the metrics have it already, as for a job that ended.
    """

    code: ClassVar = grpc.StatusCode.INTERNAL
    outcome: ClassVar = "error"
    reason: ClassVar[Reason | None] = None
    sentence: ClassVar = "The request failed; the server's log says why."

    def __init__(self, *, counted: bool = False) -> None:
        super().__init__(self.sentence)
        self.counted = counted


class Starting(Failure):
    """The networks are not loaded yet; not counted."""

    code, outcome = grpc.StatusCode.UNAVAILABLE, "unavailable"
    reason = "STARTING"
    sentence = "The side-car is starting: it answers once its networks are loaded."


class Draining(Failure):
    """The side-car is shutting down."""

    code, outcome = grpc.StatusCode.UNAVAILABLE, "unavailable"
    reason = "DRAINING"
    sentence = "The side-car is shutting down; continue elsewhere from the checkpoint."


class QueueFull(Failure):
    """The queue is full."""

    code, outcome = grpc.StatusCode.RESOURCE_EXHAUSTED, "full"
    reason = "QUEUE_FULL"
    sentence = "The queue is full; try again later."


class Incomplete(Failure):
    """The request did not arrive in time, or is malformed."""

    code, outcome = grpc.StatusCode.INVALID_ARGUMENT, "refused"
    sentence = "The request is damaged, or did not arrive within 30 seconds."


class Unread(Failure):
    """A result that nobody read; counted by its own metric."""

    code = grpc.StatusCode.ABORTED
    sentence = "The result was not read in time; continue from the last checkpoint."


class Diverged(Failure):
    """The loss of a job became NaN or infinite."""

    code, outcome = grpc.StatusCode.FAILED_PRECONDITION, "diverged"
    reason = "DIVERGED"
    sentence = "The loss became NaN or infinite; the last finite state is in the checkpoint."


class EngineFailed(Failure):
    """The engine raised an exception."""

    sentence = "The optimisation failed; the server's log says why."


class Failures(grpc.aio.ServerInterceptor):
    """Ends streams of one service by what their handler raises; around `sidecar.service.intake.Intake`.

    Args:
        service: full name of the service; others pass.
        meters: counts requests that do not become jobs.
    """

    def __init__(self, service: str, meters: Meters) -> None:
        self._prefix, self._meters = f"/{service}/", meters

    async def intercept_service(self, continuation: Next, details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handlers of streams of answers."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(self._prefix) or handler.stream_stream is None:
            return handler
        answer = handler.stream_stream

        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                async with aclosing(answer(request, context)) as events:
                    async for event in events:
                        yield event
            except ContractError as problem:
                self._meters.refused("refused")
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))
            except Failure as failure:
                if not failure.counted:
                    self._meters.refused(failure.outcome)
                why = failure.reason
                details = () if why is None else trailing(failure.code, failure.sentence, why)
                await context.abort(failure.code, failure.sentence, details)
            except Exception:
                log.exception("the request failed")
                self._meters.refused("error")
                await context.abort(Failure.code, Failure.sentence)

        return grpc.stream_stream_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)
