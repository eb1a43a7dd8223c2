"""Triton's gRPC messages and failures, as the client's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from tritonclient import grpc, utils
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
from client.text import quoted, shown
from client.triton.transport import Array, ModelConfig, TensorSpec
from client.wire.access import Access, denied, is_closed
from client.wire.channel import channel_options
from client.wire.request_id import SERVICE
from protocol.tracing import tracing

_MISSING: Final = "the server at {url} does not serve the model {model}: start it with `--models all`"

# gRPC's status, the error, and its message; UNAVAILABLE and what is not here are told apart below.
_FAILURES: Final[Mapping[str, tuple[type[ServerError], str]]] = {
    "DEADLINE_EXCEEDED": (ServerTimeout, "the server at {url} gave no answer within {timeout:.3g} seconds"),
    "NOT_FOUND": (ModelMissing, _MISSING),
    # A client that gives up is told by an exception of its own, so this is a server that stops.
    "CANCELLED": (ServerUnavailable, "the server at {url} cancelled the request: it went away"),
    "ABORTED": (ServerError, "the server at {url} aborted the request"),
    "INVALID_ARGUMENT": (RequestRejected, "the server at {url} rejected the request: {reason}"),
    "RESOURCE_EXHAUSTED": (RequestRejected, "the server at {url} rejected the request: {reason}"),
    "OUT_OF_RANGE": (RequestRejected, "the server at {url} rejected the request: {reason}"),
    "FAILED_PRECONDITION": (RequestRejected, "the server at {url} rejected the request: {reason}"),
    "UNAUTHENTICATED": (AccessDenied, "the server at {url} does not let this client in: {reason}"),
    "PERMISSION_DENIED": (AccessDenied, "the server at {url} does not let this client in: {reason}"),
    "UNIMPLEMENTED": (ServerError, "what answers at {url} is not a Triton server"),
}

# A process that dies while it answers can also leave the next step of an ensemble without an input.
_LOST: Final = re.compile(r"stub process .* is not healthy|^in ensemble .* missing required input", re.IGNORECASE)


def connection(url: str, access: Access) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the headers of every request, and the arguments of Triton's client.

    Raises:
        ParameterError: the access cannot be used.
    """
    access.checked(url)
    arguments: dict[str, Any] = {"channel_args": channel_options(url)}
    if credentials := access.credentials():
        arguments |= {"ssl": True, "creds": credentials}
    return access.triton_headers(), arguments


@contextmanager
def explained(url: str, timeout: float, *, model: str = "", runs: bool = False) -> Iterator[dict[str, str]]:
    """Turn Triton's failures into the client's errors, and give the headers of the trace.

    Args:
        url: the server's address, for messages.
        timeout: seconds that the request was given.
        model: that the request is about.
        runs: whether it runs the model; only that is worth a span.
    """
    try:
        if not runs:
            yield {}
            return
        traces = tracing(SERVICE)
        with traces.span(f"infer {model}", kind="client", model=model):
            yield traces.headers()
    except utils.InferenceServerException as problem:
        raise _error(problem, url, timeout, model, runs=runs) from problem


def sent(inputs: Mapping[str, Array]) -> list[grpc.InferInput]:
    """Return the tensors as Triton's client takes them."""
    tensors = []
    for name, value in inputs.items():
        tensor = grpc.InferInput(name, list(value.shape), utils.np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(value))
        tensors.append(tensor)
    return tensors


def asked(outputs: Sequence[str]) -> list[grpc.InferRequestedOutput]:
    """Return the outputs as Triton's client takes them."""
    return [grpc.InferRequestedOutput(name) for name in outputs]


def answered(raw: Any, outputs: Sequence[str], model: str) -> dict[str, Array]:
    """Return the tensors of an answer.

    Raises:
        AnswerRefused: one is missing or malformed.
    """
    return {name: _tensor(raw, name, model) for name in outputs}


def config_of(config: Any) -> ModelConfig:
    """Return a model's configuration."""
    return ModelConfig(
        name=config.name,
        max_batch=config.max_batch_size,
        inputs=_specs(config.input),
        outputs=_specs(config.output),
        parameters={key: value.string_value for key, value in config.parameters.items()},
    )


def _specs(tensors: Any) -> dict[str, TensorSpec]:
    found = {}
    for tensor in tensors:
        kind = utils.triton_to_np_dtype(model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"))
        found[tensor.name] = TensorSpec(np.dtype(kind or object), tuple(tensor.dims))
    return found


def _tensor(raw: Any, name: str, model: str) -> Array:
    try:
        value: Array | None = raw.as_numpy(name)
    except Exception as problem:
        # The bytes of the answer do not fill the shape that it states.
        raise AnswerRefused(f"the answer from {model} has no readable tensor {quoted(name)}") from problem
    if value is None:
        raise AnswerRefused(f"the answer from {model} has no readable tensor {quoted(name)}")
    return value


def _error(problem: utils.InferenceServerException, url: str, timeout: float, model: str, *, runs: bool) -> ServerError:
    status = (problem.status() or "").removeprefix("StatusCode.")
    raw = problem.message() or "no reason given"
    reason = shown(raw, limit=300).rstrip(".")
    if status == "UNAVAILABLE":
        return _unavailable(raw, url, model, runs=runs)
    if status in ("INTERNAL", "INVALID_ARGUMENT") and _LOST.search(raw):
        # Triton keeps running without a model's process; the launcher restarts it, or another server takes over.
        return ServerUnavailable(f"the server at {url} lost the process of {model}")
    if status == "NOT_FOUND" and not model:
        status = ""
    what = f" in {model}" if model else ""
    kind, text = _FAILURES.get(status, (ServerError, f"the server at {{url}} failed{what}: {{reason}}"))
    return kind(text.format(url=url, timeout=timeout, model=model, reason=reason))


def _unavailable(raw: str, url: str, model: str, *, runs: bool) -> ServerError:
    # Triton answers UNAVAILABLE, like a dead server, for a model that is known but not loaded.
    if model and ("unknown model" in raw.lower() or "is not ready" in raw.lower()):
        return ModelMissing(_MISSING.format(url=url, model=model))
    if trouble := denied(raw, url):
        return trouble
    if is_closed(raw):
        return ServerUnavailable(f"the server at {url} closes connections: it may want --tls, or --tls-cert")
    doing = f", or it went away while it ran {model}" if runs else ""
    return ServerUnavailable(f"no Triton server answers at {url}{doing}")
