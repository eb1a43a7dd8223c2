"""Triton over gRPC, blocking and asynchronous; both are the same translation around another client class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tritonclient import grpc as blocking
from tritonclient import utils
from tritonclient.grpc import aio as asynchronous
from tritonclient.grpc import model_config_pb2

from client.errors import (
    AccessDenied,
    AnswerRefused,
    ModelMissing,
    RequestRejected,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from client.files.atomic import shown
from client.triton.transport import (
    AskConfig,
    AskLive,
    AskReady,
    AskServer,
    AskVersions,
    Call,
    Infer,
    ModelConfig,
    ServerInfo,
    TensorSpec,
)
from client.wire.access import Access, denied, is_closed
from client.wire.channel import channel_options, checked_url
from client.wire.request_id import SERVICE, request_id
from protocol.tracing import tracing


class TritonTransport:
    """A blocking ``Transport`` to Triton's gRPC endpoint.

    Args:
        url: ``host:port``.
        access: how the server lets the client in; plain text by default.

    Raises:
        ParameterError: the URL is not of that form, or the access cannot be used.
    """

    def __init__(self, url: str, access: Access | None = None) -> None:
        self.url = checked_url(url)
        self._headers, arguments = _connection(self.url, access or Access())
        self._client = blocking.InferenceServerClient(self.url, **arguments)

    def send(self, call: Call, *, timeout: float) -> object:
        """Send once; see ``Transport``."""
        method, arguments = _request(call, blocking)
        try:
            with _span(call) as context:
                headers = {**self._headers, **context}
                raw = getattr(self._client, method)(**arguments, headers=headers, client_timeout=timeout)
        except utils.InferenceServerException as problem:
            raise _explained(problem, call, self.url, timeout) from None
        return _answer(call, raw)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()


class AsyncTritonTransport:
    """``TritonTransport`` with coroutines; its channel belongs to the event loop of the first call."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        self.url = checked_url(url)
        self._headers, self._arguments = _connection(self.url, access or Access())
        self._client: Any = None

    async def send(self, call: Call, *, timeout: float) -> object:
        """Send once; see ``Transport``."""
        if self._client is None:
            self._client = asynchronous.InferenceServerClient(self.url, **self._arguments)
        method, arguments = _request(call, asynchronous)
        try:
            with _span(call) as context:
                headers = {**self._headers, **context}
                raw = await getattr(self._client, method)(**arguments, headers=headers, client_timeout=timeout)
        except utils.InferenceServerException as problem:
            raise _explained(problem, call, self.url, timeout) from None
        return _answer(call, raw)

    async def close(self) -> None:
        """Close the channel."""
        if self._client is not None:
            await self._client.close()
            self._client = None


@contextmanager
def _span(call: Call) -> Iterator[dict[str, str]]:
    """The headers of a call's trace; only what runs a model is worth a span."""
    if not isinstance(call, Infer):
        yield {}
        return
    traces = tracing(SERVICE)
    with traces.span(f"infer {call.model}", kind="client", model=call.model):
        yield traces.headers()


def _connection(url: str, access: Access) -> tuple[dict[str, str], dict[str, Any]]:
    access.checked(url)
    arguments: dict[str, Any] = {"channel_args": channel_options(url)}
    if credentials := access.credentials():
        arguments |= {"ssl": True, "creds": credentials}
    return access.triton_headers(), arguments


def _request(call: Call, library: Any) -> tuple[str, dict[str, Any]]:  # noqa: PLR0911 - one return per kind of call
    match call:
        case AskLive():
            return "is_server_live", {}
        case AskReady(""):
            return "is_server_ready", {}
        case AskReady(model):
            return "is_model_ready", {"model_name": model}
        case AskServer():
            return "get_server_metadata", {}
        case AskVersions(model):
            return "get_model_metadata", {"model_name": model}
        case AskConfig(model):
            return "get_model_config", {"model_name": model}
        case Infer(model, inputs, outputs):
            tensors = []
            for name, value in inputs.items():
                tensor = library.InferInput(name, list(value.shape), utils.np_to_triton_dtype(value.dtype))
                tensor.set_data_from_numpy(np.ascontiguousarray(value))
                tensors.append(tensor)
            wanted = [library.InferRequestedOutput(name) for name in outputs]
            named = {"model_name": model, "request_id": request_id()}
            return "infer", {**named, "inputs": tensors, "outputs": wanted}


def _answer(call: Call, raw: Any) -> object:
    match call:
        case AskLive() | AskReady():
            return bool(raw)
        case AskServer():
            return ServerInfo(name=raw.name, version=raw.version)
        case AskVersions():
            return tuple(raw.versions)
        case AskConfig():
            return _config(raw.config)
        case Infer(model, _, outputs):
            return {name: _tensor(raw, name, model) for name in outputs}


def _tensor(raw: Any, name: str, model: str) -> Any:
    try:
        value = raw.as_numpy(name)
    except Exception:
        # The bytes of the answer do not fill the shape that it states.
        value = None
    if value is None:
        raise AnswerRefused(f"The server's answer from {model} has no readable tensor '{name}'.")
    return value


def _config(config: Any) -> ModelConfig:
    def specs(tensors: Any) -> dict[str, TensorSpec]:
        found = {}
        for tensor in tensors:
            kind = utils.triton_to_np_dtype(model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"))
            found[tensor.name] = TensorSpec(np.dtype(kind or object), tuple(tensor.dims))
        return found

    return ModelConfig(
        name=config.name,
        max_batch=config.max_batch_size,
        inputs=specs(config.input),
        outputs=specs(config.output),
        parameters={key: value.string_value for key, value in config.parameters.items()},
    )


def _explained(problem: utils.InferenceServerException, call: Call, url: str, timeout: float) -> ServerError:  # noqa: PLR0911 - one per status
    status = (problem.status() or "").removeprefix("StatusCode.")
    raw = problem.message() or "no reason given"
    message = shown(raw, limit=300).rstrip(".")
    model = getattr(call, "model", "")
    match status:
        case "DEADLINE_EXCEEDED":
            return ServerTimeout(f"The server at {url} gave no answer within {timeout:.3g} seconds.")
        case "NOT_FOUND" | "UNAVAILABLE" if model and (status == "NOT_FOUND" or _is_missing(message)):
            return ModelMissing(f"The server at {url} does not serve the model {model}.")
        case "UNAVAILABLE" if trouble := denied(raw, url):
            return trouble
        case "UNAVAILABLE" if is_closed(raw):
            return ServerUnavailable(f"The server at {url} closes connections, as if it wanted --tls or --tls-cert.")
        case "UNAVAILABLE":
            doing = f" or it went away while it ran {model}" if isinstance(call, Infer) else ""
            return ServerUnavailable(f"No Triton server answers at {url}{doing}.")
        case "CANCELLED" | "ABORTED":
            return ServerError(f"The server at {url} broke off the request.")
        case "INVALID_ARGUMENT" | "RESOURCE_EXHAUSTED" | "OUT_OF_RANGE" | "FAILED_PRECONDITION":
            return RequestRejected(f"The server at {url} refused the request: {message}.")
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return AccessDenied(f"The server at {url} does not let this client in: {message}.")
        case "UNIMPLEMENTED":
            return ServerError(f"What answers at {url} is not a Triton server.")
        case _:
            what = f" in {model}" if model else ""
            return ServerError(f"The server at {url} failed{what}: {message}.")


def _is_missing(message: str) -> bool:
    # Triton answers UNAVAILABLE, like a dead server, for a model that is known but not loaded.
    lowered = message.lower()
    return "unknown model" in lowered or "is not ready" in lowered
