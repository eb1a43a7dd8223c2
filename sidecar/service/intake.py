"""Admission: a call counts as a job before its body is read, and few bodies are in memory at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import grpc

from sidecar.service.failures import Incomplete, Next, QueueFull

# A request of 64 MiB takes about three times that while it is read and decoded.
BODIES: Final = 2
# A body that never arrives holds one of those places.
RECEIVE_S: Final = 30.0


class Intake(grpc.aio.ServerInterceptor):
    """Receives the requests of one service itself, once there is room for them.

    gRPC reads a whole request before it calls a handler of one request, however many there are. A handler of a stream
    of requests, which is the same on the wire, reads when it wants to.

    Args:
        service: full name of the service; others pass.
        calls: how many may be open; more are refused before anything is read of them.
        bodies: how many may be read and opened at a time; others wait, and cost one window of flow control each.
    """

    def __init__(self, service: str, *, calls: int, bodies: int = BODIES) -> None:
        self._prefix, self._most = f"/{service}/", calls
        self._open, self._opening = 0, asyncio.Semaphore(bodies)

    async def intercept_service(self, continuation: Next, details: grpc.HandlerCallDetails) -> Any:
        """Replace handlers of one request and a stream of answers."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(self._prefix) or handler.unary_stream is None:
            return handler
        answer, read = handler.unary_stream, handler.request_deserializer

        async def received(_bodies: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._counted():
                await self._opening.acquire()
                is_opening = True
                try:
                    async with aclosing(answer(await _one(context, read), context)) as events:
                        async for event in events:
                            if is_opening:
                                # Its first event says that it is a job; the body is no longer held.
                                is_opening = False
                                self._opening.release()
                            yield event
                finally:
                    if is_opening:
                        self._opening.release()

        return grpc.stream_stream_rpc_method_handler(received, None, handler.response_serializer)

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        if self._open >= self._most:
            raise QueueFull
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


async def _one(context: grpc.aio.ServicerContext[Any, Any], read: Callable[[bytes], Any]) -> Any:
    """The request; read by the context, because the iterator keeps its last body as long as the call lasts.

    Raises:
        Incomplete: it did not come in time, or cannot be read.
    """
    try:
        async with asyncio.timeout(RECEIVE_S):
            return read(await context.read())
    except Exception as exc:  # a timeout, a lost connection, or protobuf's DecodeError; an ended stream has no bytes
        raise Incomplete from exc
