"""What client and side-car say to each other, as values; :mod:`protocol.codec` puts them on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from protocol.options import Options
from protocol.terms import Metrics, Terms

Floats = NDArray[np.float32]
Reason = Literal["steps", "seconds", "target"]
MAX_STATE_TENSORS: Final = 64


@dataclass(frozen=True, eq=False)
class State:
    """A paused refinement: enough to continue anywhere.

    Attributes:
        step: steps done.
        seconds: seconds of optimisation so far, over all attempts.
        f: float32 [512, cut, cut].
        w_m_plus: float32 [styles, 512].
        optimiser: the optimiser's own float32 tensors by name, opaque to clients.
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
    """One photo to refine.

    Attributes:
        generator: fingerprint of its weights, 16 hex digits.
        domain: what the generator shows.
        target: the photo's square as a PNG, JPEG or WebP file.
        f: float32 [512, cut, cut], the start.
        w_m_plus: float32 [styles, 512], the start.
        f_o: float32 [512, cut, cut], the encoder's estimate.
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
    options: Options
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
    """The end; ``state`` has no optimiser's tensors, and ``metrics`` is None if the result was not judged.

    ``start_kept`` says that ``f`` and ``w_m_plus`` of ``state`` are the start, because what the steps reached is worse.
    """

    state: State
    reason: Reason
    metrics: Metrics | None
    start_kept: bool = False


Message = Queued | Progress | Preview | State | Finished
