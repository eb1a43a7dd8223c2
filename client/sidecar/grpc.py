"""The side-car over gRPC, blocking and asynchronous; both are the same translation around another stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import Any

import grpc

from client.errors import (
    AccessDenied,
    AnswerRefused,
    RefinementDiverged,
    RequestRejected,
    ServerBusy,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from client.files.atomic import shown
from client.wire.access import Access, denied, is_closed
from client.wire.channel import channel_options, checked_url
from client.wire.request_id import SERVICE
from protocol import codec, refine_pb2_grpc
from protocol import refine_pb2 as pb
from protocol.limits import ContractError
from protocol.messages import Message, RefineRequest
from protocol.tracing import tracing

# A host that is switched off says nothing: pings tell it from a step that takes long.
_KEEPALIVE = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 20_000)]


class GrpcRefineTransport:
    """A blocking ``RefineTransport`` to a side-car.

    Args:
        url: ``host:port``.
        access: how the server lets the client in; plain text by default.

    Raises:
        ParameterError: the URL is not of that form, or the access cannot be used.
    """

    def __init__(self, url: str, access: Access | None = None) -> None:
        self.url = checked_url(url)
        self._access = access or Access()
        self._access.checked(self.url)
        options, credentials = [*channel_options(self.url), *_KEEPALIVE], self._access.credentials()
        self._channel = (
            grpc.secure_channel(self.url, credentials, options)
            if credentials
            else grpc.insecure_channel(self.url, options)
        )
        self._stub: Any = refine_pb2_grpc.RefinementStub(self._channel)  # type: ignore[no-untyped-call]

    def refine(self, request: RefineRequest, *, timeout: float | None) -> Generator[Message, None, None]:
        """Open one stream; see ``RefineTransport``."""
        call = self._stub.Refine(codec.to_request(request), timeout=timeout, metadata=_metadata(self._access))
        try:
            for event in call:
                if (message := message_of(event)) is not None:
                    yield message
        except grpc.RpcError as problem:
            raise _explained(problem, self.url) from problem
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcRefineTransport:
    """``GrpcRefineTransport`` with an asynchronous generator; its channel belongs to the loop of the first call."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        self.url = checked_url(url)
        self._access = access or Access()
        self._access.checked(self.url)
        self._credentials = self._access.credentials()
        self._channel: grpc.aio.Channel | None = None

    async def refine(self, request: RefineRequest, *, timeout: float | None) -> AsyncGenerator[Message, None]:
        """Open one stream; see ``AsyncRefineTransport``."""
        if self._channel is None:
            options = [*channel_options(self.url), *_KEEPALIVE]
            self._channel = (
                grpc.aio.secure_channel(self.url, self._credentials, options)
                if self._credentials
                else grpc.aio.insecure_channel(self.url, options)
            )
        stub: Any = refine_pb2_grpc.RefinementStub(self._channel)  # type: ignore[no-untyped-call]
        call = stub.Refine(codec.to_request(request), timeout=timeout, metadata=_metadata(self._access))
        try:
            async for event in call:
                if (message := message_of(event)) is not None:
                    yield message
        except grpc.RpcError as problem:
            raise _explained(problem, self.url) from problem
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


def _metadata(access: Access) -> tuple[tuple[str, str], ...]:
    return (*access.sidecar_metadata(), *tracing(SERVICE).headers().items())


def message_of(event: pb.RefineEvent) -> Message | None:
    """Return what the event says, or None for a kind that this version does not know.

    Raises:
        AnswerRefused: it cannot be read.
    """
    try:
        return codec.from_event(event)
    except ContractError as problem:
        raise AnswerRefused(f"The side-car's answer cannot be used: {problem}") from problem


def _explained(problem: grpc.RpcError, url: str) -> ServerError:  # noqa: PLR0911 - one per status
    status: Any = problem
    raw = ""
    with suppress(AttributeError):
        raw = status.details() or ""
    told = shown(raw, limit=300)
    details = told.rstrip(".") or "no reason given"
    match status.code():
        case grpc.StatusCode.UNAVAILABLE if told.endswith("."):
            # A side-car tells its reason as a sentence; what gRPC itself says of a dead connection is none.
            return ServerBusy(f"The side-car at {url} takes no job now: {details}.")
        case grpc.StatusCode.UNAVAILABLE if trouble := denied(raw, url):
            return trouble
        case grpc.StatusCode.UNAVAILABLE if is_closed(raw):
            return ServerUnavailable(f"The side-car at {url} closes connections, as if it wanted --tls or --tls-cert.")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return ServerUnavailable(f"No side-car answers at {url}, or it went away.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" not in details:
            return ServerBusy(f"The side-car at {url} takes no job now: {details}.")
        case grpc.StatusCode.FAILED_PRECONDITION:
            return RefinementDiverged(f"The side-car at {url} ended the refinement: {details}.")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerTimeout("The refinement did not end before its deadline.")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE | grpc.StatusCode.RESOURCE_EXHAUSTED:
            return RequestRejected(f"The side-car at {url} refused the request: {details}.")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return AccessDenied(f"The side-car at {url} does not let this client in: {details}.")
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerError(f"What answers at {url} is not a side-car.")
        case _:
            return ServerError(f"The side-car at {url} failed: {details}.")
