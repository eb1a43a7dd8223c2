"""The messages of :mod:`protocol.messages` on the wire of ``refine.proto``, and back; checked on the way in.

Options, terms and metrics are copied field by field: a new one needs its line in refine.proto and in its dataclass, and
none here.

Raises :class:`protocol.limits.ContractError`, a message of one sentence, for what the contract does not allow.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Final

import numpy as np

from protocol import refine_pb2 as pb
from protocol.limits import ContractError, shortened
from protocol.messages import (
    MAX_STATE_TENSORS,
    Finished,
    Floats,
    Message,
    Preview,
    Progress,
    Queued,
    Reason,
    RefineRequest,
    State,
)
from protocol.options import Options
from protocol.terms import TERMS, Metrics, Terms

MAX_DIMENSIONS: Final = 4
MAX_DIMENSION: Final = 2**24
_JPEG: Final = b"\xff\xd8\xff"
_REASONS: Final[dict[Reason, pb.Done.Reason]] = {
    "steps": pb.Done.STEPS,
    "seconds": pb.Done.SECONDS,
    "target": pb.Done.TARGET,
}


def to_tensor(value: Floats) -> pb.Tensor:
    """float32 [...] to its shape and little-endian bytes."""
    return pb.Tensor(shape=value.shape, data=value.astype("<f4", copy=False).tobytes())


def from_tensor(message: pb.Tensor, name: str) -> Floats:
    """A copy, float32 of the tensor's shape; ``name`` names it in messages."""
    if len(message.shape) > MAX_DIMENSIONS:
        raise ContractError(f"invalid {name}: {len(message.shape)} dimensions, expected at most {MAX_DIMENSIONS}")
    shape = tuple(message.shape)
    # An empty tensor may claim any size in its other dimensions.
    if 4 * math.prod(shape) != len(message.data) or max(shape, default=0) > MAX_DIMENSION:
        raise ContractError(f"invalid {name}: {len(message.data)} bytes do not fill float32 {list(shape)}")
    return np.frombuffer(message.data, "<f4").reshape(shape).astype(np.float32)


def to_options(options: Options) -> pb.Options:
    """What is None, and what no recipe is asked to weigh, is absent."""
    said = {name: value for name, value in vars(options).items() if value is not None}
    return pb.Options(**{**said, "weights": pb.Weights(**options.weights)})


def from_options(message: pb.Options) -> Options:
    """Absent fields are left to the preset."""
    said = _present(Options, message)
    said["weights"] = {name: getattr(message.weights, name) for name in TERMS if message.weights.HasField(name)}
    return Options(**said)


def to_request(request: RefineRequest) -> pb.RefineRequest:
    """The request as the wire has it."""
    return pb.RefineRequest(
        generator=request.generator,
        domain=request.domain,
        encoded=request.target,
        f=to_tensor(request.f),
        w_m_plus=to_tensor(request.w_m_plus),
        f_o=to_tensor(request.f_o),
        options=to_options(request.options),
        resume=None if request.resume is None else to_checkpoint(request.resume),
        request_id=request.request_id,
    )


def from_request(message: pb.RefineRequest) -> RefineRequest:
    """The request as values; a photo that is sent as pixels is left to the side-car."""
    return RefineRequest(
        generator=message.generator,
        domain=message.domain,
        target=message.encoded,
        f=from_tensor(message.f, "f"),
        w_m_plus=from_tensor(message.w_m_plus, "w_m_plus"),
        f_o=from_tensor(message.f_o, "f_o"),
        options=from_options(message.options),
        request_id=message.request_id,
        resume=from_checkpoint(message.resume) if message.HasField("resume") else None,
    )


def to_checkpoint(state: State) -> pb.Checkpoint:
    """A state with the optimiser's tensors."""
    named = [pb.NamedTensor(name=name, value=to_tensor(value)) for name, value in state.optimiser.items()]
    return pb.Checkpoint(state=named, **_common(state))


def from_checkpoint(message: pb.Checkpoint) -> State:
    """A state with the optimiser's tensors."""
    if len(message.state) > MAX_STATE_TENSORS:
        raise ContractError(f"invalid checkpoint: {len(message.state)} tensors, expected at most {MAX_STATE_TENSORS}")
    named = {item.name: from_tensor(item.value, f"{shortened(item.name)} of the checkpoint") for item in message.state}
    if len(named) < len(message.state):
        raise ContractError("invalid checkpoint: a tensor is named twice")
    return _state(message, named)


def to_event(message: Message) -> pb.RefineEvent:
    """The event that carries a message."""
    match message:
        case Queued():
            return pb.RefineEvent(queued=pb.Queued(**vars(message)))
        case Progress():
            return pb.RefineEvent(progress=pb.Progress(**{**vars(message), "terms": pb.Terms(**vars(message.terms))}))
        case Preview():
            return pb.RefineEvent(preview=pb.Preview(**vars(message)))
        case State():
            return pb.RefineEvent(checkpoint=to_checkpoint(message))
        case Finished(state, reason, metrics, start_kept):
            said = {} if metrics is None else {k: v for k, v in vars(metrics).items() if v is not None}
            judged = None if metrics is None else pb.Metrics(**said)
            done = pb.Done(reason=_REASONS[reason], metrics=judged, start_kept=start_kept, **_common(state))
            return pb.RefineEvent(done=done)


def from_event(event: pb.RefineEvent) -> Message | None:
    """The message of an event; None for a kind that this version does not know."""
    match event.WhichOneof("event"):
        case "queued":
            return Queued(event.queued.position)
        case "progress":
            progress = event.progress
            return Progress(progress.step, progress.steps, progress.seconds, _terms(progress.terms))
        case "preview":
            if not event.preview.jpeg.startswith(_JPEG):
                raise ContractError("invalid preview: not a JPEG file")
            return Preview(event.preview.step, event.preview.jpeg)
        case "checkpoint":
            return from_checkpoint(event.checkpoint)
        case "done":
            return _finished(event.done)
        case _:
            return None


def _common(state: State) -> dict[str, Any]:
    """What Checkpoint and Done share."""
    terms = None if state.terms is None else pb.Terms(**vars(state.terms))
    tensors = {"f": to_tensor(state.f), "w_m_plus": to_tensor(state.w_m_plus)}
    return {"step": state.step, "seconds": state.seconds, "terms": terms, **tensors}


def _state(message: pb.Checkpoint | pb.Done, optimiser: dict[str, Floats]) -> State:
    return State(
        step=message.step,
        seconds=message.seconds,
        f=from_tensor(message.f, "f of the checkpoint"),
        w_m_plus=from_tensor(message.w_m_plus, "w_m_plus of the checkpoint"),
        optimiser=optimiser,
        terms=_terms(message.terms) if message.HasField("terms") else None,
    )


def _terms(message: pb.Terms) -> Terms:
    return Terms(**{field.name: getattr(message, field.name) for field in fields(Terms)})


def _finished(message: pb.Done) -> Finished:
    reason = next((name for name, value in _REASONS.items() if value == message.reason), None)
    if reason is None:
        raise ContractError("invalid result: the reason for the end is missing")
    metrics = None
    if message.HasField("metrics"):
        required = ("stlpips_alex", "psnr_256", "psnr")
        known = {name: getattr(message.metrics, name) for name in required}
        metrics = Metrics(**{**_present(Metrics, message.metrics, without=required), **known})
    return Finished(_state(message, {}), reason, metrics, message.start_kept)


def _present(kind: type[Any], message: Any, *, without: tuple[str, ...] = ("weights",)) -> dict[str, Any]:
    """The fields of a dataclass that the message has."""
    names = (field.name for field in fields(kind) if field.name not in without)
    return {name: getattr(message, name) for name in names if message.HasField(name)}
