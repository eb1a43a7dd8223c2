"""What the service and the optimisation tell each other: a start, options, a job, its state."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Image8 = NDArray[np.uint8]
Reason = Literal["steps", "seconds", "target", "diverged"]


class InvalidRequest(ValueError):
    """A request that no server would take; the message is one sentence for its sender."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where a refinement begins.

    Attributes:
        target: uint8 [S, S, 3], RGB, the square of the photo, of the generator's resolution.
        f: float32 [512, s, s], s 8 or 16; in W+ 4, the generator's constant.
        w_m_plus: float32 [styles, 512].
        f_o: float32, of the shape of ``f``: the encoder's estimate, which ``f`` is held to.
    """

    target: Image8
    f: Floats
    w_m_plus: Floats
    f_o: Floats


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a request may choose; None is the preset's own.

    Attributes:
        preset: name of a recipe.
        steps: of the whole job, 1 to 10000.
        seconds: budget of optimisation over all attempts, above 0, at most 86400.
        target: the job stops once the perceptual term at 256 px is at most this, above 0, at most 10.
        weights: of the terms ``mse``, ``perceptual``, ``f``, ``p_norm`` and ``domain``, 0 to 1e6 each.
        clip: bound of the numbers of P-norm+(w_M+) after each step, above 0, at most 1000.
    """

    preset: str = "default"
    steps: int | None = None
    seconds: float | None = None
    target: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None


@dataclass(frozen=True)
class Terms:
    """The loss and its terms, not weighted (see ``Terms`` in refine.proto); all finite."""

    total: float
    mse: float
    perceptual: float
    f: float
    p_norm: float
    domain: float = 0.0


@dataclass(frozen=True, eq=False)
class State:
    """A job at rest: enough to go on anywhere.

    Attributes:
        step: steps done.
        seconds: of optimisation so far, over all attempts.
        f: float32 [512, s, s].
        w_m_plus: float32 [styles, 512].
        optimiser: the optimiser's own float32 tensors by name.
        terms: at the last step done; None before the first.
    """

    step: int
    seconds: float
    f: Floats
    w_m_plus: Floats
    optimiser: Mapping[str, Floats]
    terms: Terms | None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """How good a result is (see ``Metrics`` in refine.proto)."""

    stlpips_alex: float
    psnr_256: float
    psnr: float
    identity: float | None = None
    landmarks: float | None = None
    face: bool | None = None


class Job(Protocol):
    """One refinement in progress. Not thread-safe: one thread at a time asks and runs it."""

    @property
    def group(self) -> Hashable:
        """Jobs of one group run in one batch; a job may change its group between slices (another resolution)."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def steps(self) -> int:
        """Steps that it has at most."""

    @property
    def seconds(self) -> float:
        """Seconds of optimisation so far, over all attempts."""

    @property
    def terms(self) -> Terms | None:
        """At the last step done; None before the first."""

    @property
    def reason(self) -> Reason | None:
        """Why it ended, or None while it goes on."""

    def state(self) -> State:
        """A copy of where it is; the last finite one where the loss has become NaN or infinite."""


class Engine(Protocol):
    """A generator with its losses on a device."""

    @property
    def domain(self) -> str:
        """What the generator shows, for example ``ffhq``."""

    @property
    def generator(self) -> str:
        """Fingerprint of its weights, 16 hex digits."""

    @property
    def resolution(self) -> int:
        """Side of its images in pixels."""

    def open(self, start: Start, options: Options, resume: State | None = None) -> Job:
        """A job at its start, or at ``resume``.

        Raises:
            InvalidRequest: an unknown preset, an option out of range, wrong shapes, numbers that are not finite.
        """

    def run(self, jobs: Sequence[Job], steps: int) -> None:
        """Take up to ``steps`` steps with each job of one group; a job that ends or changes its group takes fewer."""

    def preview(self, state: State) -> Image8:
        """What an inversion shows, uint8 [256, 256, 3], RGB. May be called from another thread than ``run``."""

    def judge(self, start: Start, state: State) -> Metrics:
        """How good it is. May be called from another thread than ``run``."""
