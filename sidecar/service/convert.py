"""Between the wire (``protocol/refine.proto``) and ``sidecar.job``; what a request says is checked on the way.

Raises ``InvalidRequest`` with one sentence; ranges that depend on the generator are the engine's to check.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from protocol import refine_pb2 as pb
from sidecar.job import Floats, InvalidRequest, Metrics, Options, Reason, Start, State, Terms
from sidecar.service.photo import square

MAX_DIMENSIONS = 4
MAX_DIMENSION = 2**24
MAX_EVERY = 10_000
CHECKPOINT_EVERY = 25
_TENSORS = 64
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WEIGHTS = ("mse", "perceptual", "f", "p_norm", "domain")
_REASONS: dict[Reason, pb.Done.Reason] = {
    "steps": pb.Done.STEPS,
    "seconds": pb.Done.SECONDS,
    "target": pb.Done.TARGET,
}


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Steps between the events of a stream; None is never, or, for progress, every slice."""

    checkpoint: int
    progress: int | None
    preview: int | None


def array(tensor: pb.Tensor, name: str) -> Floats:
    """float32 of the tensor's shape; a copy.

    Raises:
        InvalidRequest: its data do not fill its shape, or it has too many dimensions or too large ones.
    """
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise InvalidRequest(f"{name} has {len(tensor.shape)} dimensions, more than {MAX_DIMENSIONS}.")
    shape = tuple(tensor.shape)
    # An empty tensor may claim any other size.
    if 4 * math.prod(shape) != len(tensor.data) or max(shape, default=0) > MAX_DIMENSION:
        raise InvalidRequest(f"{name} has {len(tensor.data)} bytes, and its shape is {list(shape)} of float32.")
    return np.frombuffer(tensor.data, "<f4").reshape(shape).astype(np.float32)


def tensor(value: Floats) -> pb.Tensor:
    """The wire's form of a float32 array."""
    return pb.Tensor(shape=value.shape, data=value.astype("<f4", copy=False).tobytes())


def start(request: pb.RefineRequest, *, resolution: int) -> Start:
    """The start of a request, its photo resampled to the generator's resolution."""
    return Start(
        target=square(request, resolution=resolution),
        f=array(request.f, "f"),
        w_m_plus=array(request.w_m_plus, "w_m_plus"),
        f_o=array(request.f_o, "f_o"),
    )


def options(message: pb.Options) -> Options:
    """The options of a request; 0 and absent fields are the preset's own."""
    chosen = {name: getattr(message.weights, name) for name in _WEIGHTS if message.weights.HasField(name)}
    return Options(
        preset=message.preset or "default",
        steps=message.steps or None,
        seconds=message.seconds if message.seconds != 0 else None,
        target=message.target if message.target != 0 else None,
        weights=chosen,
        clip=message.clip if message.clip != 0 else None,
    )


def cadence(message: pb.Options) -> Cadence:
    """How often the stream says what."""
    for name in ("checkpoint_every", "progress_every", "preview_every"):
        if getattr(message, name) > MAX_EVERY:
            raise InvalidRequest(f"The option {name} is at most {MAX_EVERY}, not {getattr(message, name)}.")
    return Cadence(
        checkpoint=message.checkpoint_every or CHECKPOINT_EVERY,
        progress=message.progress_every or None,
        preview=message.preview_every or None,
    )


def resume(request: pb.RefineRequest) -> State | None:
    """Where an earlier attempt got, or None."""
    if not request.HasField("resume"):
        return None
    message = request.resume
    if len(message.state) > _TENSORS:
        raise InvalidRequest(f"The checkpoint's state has {len(message.state)} tensors, more than {_TENSORS}.")
    state = {named.name: array(named.value, f"the checkpoint's {named.name[:40]!r}") for named in message.state}
    if len(state) < len(message.state):
        raise InvalidRequest("The checkpoint's state names a tensor twice.")
    found = None
    if message.HasField("terms"):
        found = Terms(**{name: getattr(message.terms, name) for name in ("total", *_WEIGHTS)})
        if not all(math.isfinite(term) for term in vars(found).values()):
            raise InvalidRequest("The checkpoint's terms hold numbers that are not finite.")
    return State(
        message.step,
        message.seconds,
        array(message.f, "the checkpoint's f"),
        array(message.w_m_plus, "the checkpoint's w_m_plus"),
        state,
        found,
    )


def request_id(request: pb.RefineRequest) -> str:
    """The request's own id, or ''."""
    if request.request_id and not _ID.fullmatch(request.request_id):
        raise InvalidRequest("A request_id has at most 64 of the characters A-Z, a-z, 0-9, '.', '_' and '-'.")
    return request.request_id


def terms(found: Terms | None) -> pb.Terms | None:
    """The wire's form."""
    return None if found is None else pb.Terms(**{name: getattr(found, name) for name in ("total", *_WEIGHTS)})


def checkpoint(state: State) -> pb.Checkpoint:
    """The wire's form."""
    return pb.Checkpoint(
        step=state.step,
        seconds=state.seconds,
        f=tensor(state.f),
        w_m_plus=tensor(state.w_m_plus),
        state=[pb.NamedTensor(name=name, value=tensor(value)) for name, value in state.optimiser.items()],
        terms=terms(state.terms),
    )


def done(state: State, reason: Reason, metrics: Metrics | None) -> pb.Done:
    """The wire's form; ``metrics`` is None where judging failed."""
    found = None
    if metrics is not None:
        found = pb.Metrics(**{name: value for name, value in vars(metrics).items() if value is not None})
    return pb.Done(
        step=state.step,
        seconds=state.seconds,
        reason=_REASONS[reason],
        f=tensor(state.f),
        w_m_plus=tensor(state.w_m_plus),
        terms=terms(state.terms),
        metrics=found,
    )
