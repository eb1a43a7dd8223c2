"""What may be chosen for a refinement, and how far it got, as an inversion file records it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final, get_args

from client.errors import ParameterError
from client.files.tensors import fault
from client.limits import turns
from client.text import clause
from protocol.limits import ContractError, Limit, shortened
from protocol.messages import MAX_STATE_TENSORS, Floats, Reason
from protocol.methods import PRESETS
from protocol.options import MAX_STEPS, RECORDED, Options
from protocol.terms import Metrics, Terms

REASONS: Final = get_args(Reason)
_STATE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STEP: Final = Limit(what="step", low=0, high=MAX_STEPS, whole=True)
_SECONDS: Final = Limit(what="number of seconds", low=0, high=3.4e38)


@dataclass(frozen=True, kw_only=True)
class RefineOptions(Options):
    """``protocol.options.Options`` of a preset that this client knows.

    Raises:
        ParameterError: on creation, when a value is out of its range.
    """

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ParameterError(f"unknown preset {shortened(self.preset)}: expected {', '.join(PRESETS)}")
        try:
            super().__post_init__()
        except ContractError as problem:
            raise ParameterError(clause(problem)) from problem

    def shared(self, faces: int) -> RefineOptions:
        """Return the options of each of so many faces of a photo where ``seconds`` are those of all of them together.

        Faces that are refined at a time spend the same seconds, so only those that take turns share them.
        """
        return self if self.seconds is None else replace(self, seconds=self.seconds / turns(faces))


@dataclass(frozen=True, kw_only=True, eq=False)
class Refinement:
    """How far a refinement got, as an inversion file keeps it.

    Attributes:
        options: those it was asked for.
        step: steps done.
        steps: steps it has at most; None until the server has said.
        seconds: seconds of optimisation so far, over all attempts.
        terms: at the last step done; None before the first.
        optimiser: float32 tensors by name, what the server needs to continue; empty once finished.
        reason: why it ended: all steps done, the budget used up, the target reached; None while it can be continued.
        metrics: quality of the result, once finished and judged.
        start_kept: whether the inversion is the start, because what the steps reached is worse.

    Raises:
        ParameterError: on creation, when a value is out of its range, or a tensor not float32 or not finite.
    """

    options: RefineOptions
    step: int
    steps: int | None = None
    seconds: float = 0.0
    terms: Terms | None = None
    optimiser: Mapping[str, Floats] = field(default_factory=dict)
    reason: Reason | None = None
    metrics: Metrics | None = None
    start_kept: bool = False

    def __post_init__(self) -> None:
        try:
            _STEP.check(self.step)
            if self.steps is not None:
                Limit(what="number of steps", low=max(self.step, 1), high=MAX_STEPS, whole=True).check(self.steps)
            _SECONDS.check(self.seconds)
        except ContractError as problem:
            raise ParameterError(clause(problem)) from problem
        if not isinstance(self.start_kept, bool):
            raise ParameterError("invalid start_kept: expected true or false")
        if self.reason is not None and self.reason not in REASONS:
            raise ParameterError(f"unknown reason {shortened(self.reason)}: expected {', '.join(REASONS)}")
        check_optimiser(self.optimiser)

    @property
    def resumable(self) -> bool:
        """Whether it was interrupted after a step, so that it can be continued exactly."""
        return self.reason is None and self.step > 0

    def encode(self) -> str:
        """Return all but the optimiser's tensors as JSON."""
        options = {key: getattr(self.options, key) for key in RECORDED}
        values = {"options": {**options, "weights": dict(self.options.weights)}}
        rest = {key: getattr(self, key) for key in ("step", "steps", "seconds", "reason")}
        measured = {key: value and asdict(value) for key, value in (("terms", self.terms), ("metrics", self.metrics))}
        kept = {"start_kept": True} if self.start_kept else {}
        return json.dumps({**values, **rest, **measured, **kept}, allow_nan=False)

    @classmethod
    def decode(cls, text: str, optimiser: Mapping[str, Floats]) -> Refinement:
        """Read what ``encode`` wrote.

        Raises:
            ParameterError: the text is damaged, or holds a value that is out of its range.
        """
        try:
            values = json.loads(text)
            options, terms, metrics = values.pop("options"), values.pop("terms"), values.pop("metrics")
            return cls(
                options=RefineOptions(**options),
                terms=None if terms is None else Terms(**terms),
                metrics=None if metrics is None else Metrics(**metrics),
                optimiser=optimiser,
                **values,
            )
        except ContractError as problem:
            raise ParameterError(clause(problem)) from problem
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            raise ParameterError("the account of the refinement is damaged") from problem


def check_optimiser(tensors: Mapping[str, Floats]) -> None:
    """Raise ``ParameterError`` unless the optimiser's tensors are few, named plainly, float32 and finite."""
    if len(tensors) > MAX_STATE_TENSORS:
        raise ParameterError(f"the optimiser's state has {len(tensors)} tensors, more than {MAX_STATE_TENSORS}")
    for name, value in tensors.items():
        if not _STATE_NAME.fullmatch(name):
            raise ParameterError(f"invalid name {shortened(name)} of an optimiser's tensor")
        if wrong := fault(value):
            raise ParameterError(f"the optimiser's tensor '{name}' {wrong}")
