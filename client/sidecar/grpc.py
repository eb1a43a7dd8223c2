"""The side-car over gRPC, blocking and asynchronous; both are the same translation around another stream."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import Any

import grpc
import numpy as np

from client.errors import (
    AccessDenied,
    AnswerRefused,
    ParameterError,
    RefinementDiverged,
    RequestRejected,
    ServerBusy,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from client.files.atomic import shown
from client.sidecar.record import Floats, Metrics, Reason, RefineOptions, Terms
from client.sidecar.transport import Finished, Message, Preview, Progress, Queued, RefineRequest, State
from client.wire.access import Access, denied, is_closed
from client.wire.channel import channel_options, checked_url
from client.wire.request_id import SERVICE
from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from protocol.tracing import tracing

_MAX_DIMENSIONS = 8
_FLOAT32 = np.dtype("<f4")
_JPEG = b"\xff\xd8\xff"
_REASONS: dict[int, Reason] = {pb.Done.STEPS: "steps", pb.Done.SECONDS: "seconds", pb.Done.TARGET: "target"}
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
        call = self._stub.Refine(to_request(request), timeout=timeout, metadata=_metadata(self._access))
        try:
            for event in call:
                if (message := from_event(event)) is not None:
                    yield message
        except grpc.RpcError as problem:
            raise _explained(problem, self.url) from None
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
        call = stub.Refine(to_request(request), timeout=timeout, metadata=_metadata(self._access))
        try:
            async for event in call:
                if (message := from_event(event)) is not None:
                    yield message
        except grpc.RpcError as problem:
            raise _explained(problem, self.url) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


def _metadata(access: Access) -> tuple[tuple[str, str], ...]:
    return (*access.sidecar_metadata(), *tracing(SERVICE).headers().items())


def to_request(request: RefineRequest) -> pb.RefineRequest:
    """Return the request as the wire has it."""
    message = pb.RefineRequest(
        generator=request.generator,
        domain=request.domain,
        encoded=request.target,
        f=_to_tensor(request.f),
        w_m_plus=_to_tensor(request.w_m_plus),
        f_o=_to_tensor(request.f_o),
        options=_to_options(request.options),
        request_id=request.request_id,
    )
    state = request.resume
    if state is not None:
        resume = pb.Checkpoint(
            step=state.step,
            seconds=state.seconds,
            f=_to_tensor(state.f),
            w_m_plus=_to_tensor(state.w_m_plus),
            state=[pb.NamedTensor(name=name, value=_to_tensor(value)) for name, value in state.optimiser.items()],
        )
        if state.terms is not None:
            resume.terms.CopyFrom(pb.Terms(**vars(state.terms)))
        message.resume.CopyFrom(resume)
    return message


def from_event(event: pb.RefineEvent) -> Message | None:
    """Return what the event says, or None for a kind that this version does not know.

    Raises:
        AnswerRefused: it cannot be read.
    """
    try:
        match event.WhichOneof("event"):
            case "queued":
                return Queued(event.queued.position)
            case "progress":
                progress = event.progress
                return Progress(progress.step, progress.steps, progress.seconds, _terms(progress.terms))
            case "preview":
                if not event.preview.jpeg.startswith(_JPEG):
                    raise AnswerRefused("The side-car sent a preview that is not a JPEG file.")
                return Preview(event.preview.step, event.preview.jpeg)
            case "checkpoint":
                return _state(event.checkpoint, {item.name: _tensor(item.value) for item in event.checkpoint.state})
            case "done":
                return _finished(event.done)
            case _:
                return None
    except ParameterError as problem:
        raise AnswerRefused(f"The side-car's answer cannot be used: {problem}") from None


def _to_options(options: RefineOptions) -> pb.Options:
    return pb.Options(
        preset=options.preset,
        steps=options.steps or 0,
        seconds=options.seconds or 0.0,
        target=options.target or 0.0,
        weights=pb.Weights(**options.weights),
        checkpoint_every=options.checkpoint_every,
        preview_every=options.preview_every,
        clip=options.clip or 0.0,
    )


def _to_tensor(value: Floats) -> pb.Tensor:
    return pb.Tensor(shape=value.shape, data=np.ascontiguousarray(value, _FLOAT32).tobytes())


def _tensor(message: pb.Tensor) -> Floats:
    shape = tuple(message.shape)
    if len(shape) > _MAX_DIMENSIONS or len(message.data) != _FLOAT32.itemsize * math.prod(shape):
        raise AnswerRefused("The side-car sent a tensor whose bytes do not fill its shape.")
    value: Floats = np.frombuffer(message.data, _FLOAT32).reshape(shape).astype(np.float32)
    return value


def _terms(message: pb.Terms) -> Terms:
    return Terms(message.total, message.mse, message.perceptual, message.f, message.p_norm, message.domain)


def _state(message: pb.Checkpoint | pb.Done, optimiser: dict[str, Floats]) -> State:
    return State(
        step=message.step,
        seconds=message.seconds,
        f=_tensor(message.f),
        w_m_plus=_tensor(message.w_m_plus),
        optimiser=optimiser,
        terms=_terms(message.terms) if message.HasField("terms") else None,
    )


def _finished(message: pb.Done) -> Finished:
    if message.reason not in _REASONS:
        raise AnswerRefused("The side-car ended the refinement without a reason.")
    return Finished(
        _state(message, {}),
        _REASONS[message.reason],
        _metrics(message.metrics) if message.HasField("metrics") else None,
    )


def _metrics(message: pb.Metrics) -> Metrics:
    optional = {name: getattr(message, name) for name in ("identity", "landmarks", "face") if message.HasField(name)}
    return Metrics(stlpips_alex=message.stlpips_alex, psnr_256=message.psnr_256, psnr=message.psnr, **optional)


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
