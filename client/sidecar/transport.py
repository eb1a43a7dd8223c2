"""What is asked of a side-car and what it tells, before it is believed; gRPC or a fake in a test carries it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from typing import Protocol

from client.sidecar.record import Floats, Metrics, Reason, RefineOptions, Terms


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A refinement at rest: enough to go on anywhere.

    Attributes:
        step: steps done.
        seconds: of optimisation so far, over all attempts.
        f: float32 [512, cut, cut].
        w_m_plus: float32 [styles, 512].
        optimiser: the server's own float32 tensors by name.
        terms: at the last step done; None before the first.
    """

    step: int
    seconds: float
    f: Floats
    w_m_plus: Floats
    optimiser: Mapping[str, Floats]
    terms: Terms | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RefineRequest:
    """One photo to refine; see ``RefineRequest`` in refine.proto.

    Attributes:
        generator: fingerprint.
        domain: what the generator shows.
        target: the photo's square as a PNG file.
        f: float32 [512, cut, cut], the start.
        w_m_plus: float32 [styles, 512], the start.
        f_o: float32 [512, cut, cut].
        options: what was chosen.
        request_id: names the refinement in the server's log, over all attempts.
        resume: where an earlier attempt got.
    """

    generator: str
    domain: str
    target: bytes
    f: Floats
    w_m_plus: Floats
    f_o: Floats
    options: RefineOptions
    request_id: str
    resume: State | None = None


@dataclass(frozen=True)
class Queued:
    """The refinement waits for its turn, after ``position`` others."""

    position: int


@dataclass(frozen=True)
class Progress:
    """``step`` of at most ``steps`` steps are done, after ``seconds`` of optimisation."""

    step: int
    steps: int
    seconds: float
    terms: Terms


@dataclass(frozen=True, eq=False)
class Preview:
    """What the inversion shows at a step: ``jpeg`` is a JPEG file of 256 x 256 pixels."""

    step: int
    jpeg: bytes


@dataclass(frozen=True, eq=False)
class Finished:
    """The end; ``state`` has no optimiser's tensors, and ``metrics`` is None where the result was not judged."""

    state: State
    reason: Reason
    metrics: Metrics | None


Message = Queued | Progress | Preview | State | Finished


class RefineTransport(Protocol):
    """Opens streams to a side-car; every failure is a ``ServerError``."""

    @property
    def url(self) -> str:
        """Address of the side-car, for messages."""

    def refine(self, request: RefineRequest, *, timeout: float | None) -> Generator[Message, None, None]:
        """Give what the side-car says, for at most ``timeout`` seconds; closing the generator cancels the job."""

    def close(self) -> None:
        """Let go of the connection."""


class AsyncRefineTransport(Protocol):
    """``RefineTransport`` with an asynchronous generator."""

    @property
    def url(self) -> str:
        """Address of the side-car, for messages."""

    def refine(self, request: RefineRequest, *, timeout: float | None) -> AsyncGenerator[Message, None]:
        """Give what the side-car says, for at most ``timeout`` seconds; closing the generator cancels the job."""

    async def close(self) -> None:
        """Let go of the connection."""
