"""The side-car over gRPC, blocking and asynchronous; both are the same translation around another stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import suppress
from typing import Any, Final

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
from client.sidecar.silence import heard, heard_async
from client.text import clause, shown
from client.wire.access import Access, denied, is_closed
from client.wire.channel import channel_options, checked_url
from client.wire.request_id import SERVICE
from client.wire.timeout import Timeout
from protocol import codec, refine_pb2_grpc
from protocol import refine_pb2 as pb
from protocol.limits import ContractError
from protocol.messages import Message, RefineRequest
from protocol.status import BUSY, reason_of
from protocol.tracing import tracing

# A host that is switched off says nothing: pings tell it from a step that takes long.
_PATIENCE_S: Final = Timeout().patience
_KEEPALIVE = [("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 20_000)]


class _Connection:
    """How to reach a side-car: what both transports share."""

    def __init__(self, url: str, access: Access | None = None, *, patience: float = _PATIENCE_S) -> None:
        self.url, self._patience = checked_url(url), patience
        self._access = access or Access()
        self._access.checked(self.url)
        self._credentials = self._access.credentials()

    def _opened(self, library: Any) -> Any:
        """Return a channel of ``grpc`` or ``grpc.aio``."""
        options = [*channel_options(self.url), *_KEEPALIVE]
        if self._credentials is None:
            return library.insecure_channel(self.url, options)
        return library.secure_channel(self.url, self._credentials, options)

    def _call(self, channel: Any, request: RefineRequest, timeout: float | None) -> Any:
        metadata = (*self._access.sidecar_metadata(), *tracing(SERVICE).headers().items())
        stub: Any = refine_pb2_grpc.RefinementStub(channel)  # type: ignore[no-untyped-call]
        return stub.Refine(codec.to_request(request), timeout=timeout, metadata=metadata)


class GrpcRefineTransport(_Connection):
    """A blocking ``RefineTransport`` to a side-car.

    Args:
        url: ``host:port``.
        access: how the server lets the client in; plain text by default.
        patience: seconds of silence after which the side-car counts as gone.

    Raises:
        ParameterError: the URL is not of that form, or the access cannot be used.
    """

    def __init__(self, url: str, access: Access | None = None, *, patience: float = _PATIENCE_S) -> None:
        super().__init__(url, access, patience=patience)
        self._channel = self._opened(grpc)

    def refine(self, request: RefineRequest, *, timeout: float | None) -> Generator[Message, None, None]:
        """Open one stream; see ``RefineTransport``."""
        call = self._call(self._channel, request, timeout)
        try:
            for event in heard(call, self.url, self._patience):
                if (message := message_of(event)) is not None:
                    yield message
        except grpc.RpcError as problem:
            raise _explained(problem, self.url) from problem
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcRefineTransport(_Connection):
    """``GrpcRefineTransport`` with an asynchronous generator; its channel belongs to the loop of the first call."""

    _channel: Any = None

    async def refine(self, request: RefineRequest, *, timeout: float | None) -> AsyncGenerator[Message, None]:
        """Open one stream; see ``AsyncRefineTransport``."""
        self._channel = self._channel or self._opened(grpc.aio)
        call = self._call(self._channel, request, timeout)
        try:
            async for event in heard_async(call, self.url, self._patience):
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


def message_of(event: pb.RefineEvent) -> Message | None:
    """Return what the event says, or None for a kind that this version does not know.

    Raises:
        AnswerRefused: it cannot be read.
    """
    try:
        return codec.from_event(event)
    except ContractError as problem:
        raise AnswerRefused(f"the side-car's answer is malformed: {clause(problem)}") from problem


# What a status means, and its message.
_MEANINGS: Final[Mapping[grpc.StatusCode, tuple[type[ServerError], str]]] = {
    grpc.StatusCode.UNAVAILABLE: (ServerUnavailable, "no side-car answers at {url}, or it went away"),
    grpc.StatusCode.CANCELLED: (ServerUnavailable, "no side-car answers at {url}, or it went away"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (ServerBusy, "the side-car at {url} accepts no job now: {details}"),
    grpc.StatusCode.FAILED_PRECONDITION: (RefinementDiverged, "the side-car at {url} ended the refinement: {details}"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (ServerTimeout, "the refinement did not end before its deadline"),
    grpc.StatusCode.INVALID_ARGUMENT: (RequestRejected, "the side-car at {url} rejected the request: {details}"),
    grpc.StatusCode.OUT_OF_RANGE: (RequestRejected, "the side-car at {url} rejected the request: {details}"),
    grpc.StatusCode.UNAUTHENTICATED: (AccessDenied, "the side-car at {url} does not let this client in: {details}"),
    grpc.StatusCode.PERMISSION_DENIED: (AccessDenied, "the side-car at {url} does not let this client in: {details}"),
    grpc.StatusCode.UNIMPLEMENTED: (ServerError, "what answers at {url} is not a side-car"),
}
_OTHERWISE: Final = (ServerError, "the side-car at {url} failed: {details}")


def _explained(problem: grpc.RpcError, url: str) -> ServerError:
    status: Any = problem
    code, raw = status.code(), ""
    with suppress(AttributeError):
        raw = status.details() or ""
    details = clause(shown(raw, limit=300)) or "no reason given"
    kind, sentence = _MEANINGS.get(code, _OTHERWISE)
    if reason_of(problem) in BUSY:
        kind, sentence = _MEANINGS[grpc.StatusCode.RESOURCE_EXHAUSTED]
    elif code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        # gRPC's own limit of a message, which no waiting changes.
        kind, sentence = _MEANINGS[grpc.StatusCode.INVALID_ARGUMENT]
    elif code == grpc.StatusCode.UNAVAILABLE and (trouble := denied(raw, url)):
        return trouble
    elif code == grpc.StatusCode.UNAVAILABLE and is_closed(raw):
        sentence = "the side-car at {url} closes connections: it may want --tls, or --tls-cert"
    return kind(sentence.format(url=url, details=details))
