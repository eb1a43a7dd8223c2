"""What the service and the optimisation know of each other: an engine, its jobs, and where a job starts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.messages import Floats, Reason, State
from protocol.options import Options
from protocol.terms import Metrics, Terms

Image8 = NDArray[np.uint8]
End = Reason | Literal["diverged"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """The start of a refinement.

    Attributes:
        target: uint8 [S, S, 3], RGB, the square of the photo, of the generator's resolution.
        f: float32 [512, s, s], s 8 or 16; in W+ 4, the generator's constant.
        w_m_plus: float32 [styles, 512].
        f_o: float32, of the shape of ``f``: the encoder's estimate, to which ``f`` is held.
    """

    target: Image8
    f: Floats
    w_m_plus: Floats
    f_o: Floats


class Job(Protocol):
    """A refinement in progress. Not thread-safe."""

    @property
    def group(self) -> Hashable:
        """Jobs of one group can share a batch; a job may change its group between slices."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def steps(self) -> int:
        """Most steps it will take."""

    @property
    def seconds(self) -> float:
        """Seconds of optimisation so far, over all attempts."""

    @property
    def terms(self) -> Terms | None:
        """At the last step done; None before the first."""

    @property
    def reason(self) -> End | None:
        """Why it ended; None while it runs."""

    def state(self) -> State:
        """A copy of its state; the last finite one if the loss became NaN or infinite."""


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
            ContractError: an unknown preset, wrong shapes, numbers that are not finite.
        """

    def run(self, jobs: Sequence[Job], steps: int) -> None:
        """Take up to ``steps`` steps with each job of one group; fewer where a job ends or changes its group."""

    def preview(self, state: State) -> Image8:
        """What an inversion shows, uint8 [256, 256, 3], RGB. May be called from another thread than ``run``."""

    def judge(self, start: Start, state: State) -> Metrics:
        """How good it is. May be called from another thread than ``run``."""
