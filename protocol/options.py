"""The options of a refinement as data: each field with its range; command line, wire and recipes follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from protocol.limits import ContractError, Limit, shortened
from protocol.methods import DEFAULT_PRESET
from protocol.terms import TERMS

MAX_STEPS: Final = 10_000
WEIGHT: Final = Limit(what="weight", low=0, high=1e6)


def _option(what: str, high: float, default: Any = None, *, whole: bool = False, recorded: bool = True) -> Any:
    """A field that may be None, which leaves it to the preset or to the server.

    Args:
        what: begins the message about a value out of range.
        high: the largest value; the least is 1 for whole numbers, otherwise anything above 0.
        default: what it is where nothing is chosen.
        whole: whether it must be an integer.
        recorded: whether an inversion file keeps it.
    """
    limit = Limit(what=what, low=1 if whole else 0, high=high, whole=whole, above=not whole)
    return field(default=default, metadata={"limit": limit, "recorded": recorded})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a refinement may choose (``Options`` in refine.proto); None is the preset's own.

    Attributes:
        preset: name of a recipe.
        steps: steps of the whole refinement, 1 to 10000.
        seconds: budget of optimisation over all attempts, above 0 and up to 86400.
        target: stop once the perceptual term at 256 px is at most this, above 0 and up to 10.
        weights: weights of terms of the loss, 0 to 1e6 each.
        clip: bound of the numbers of P-norm+(w_M+) after each step, above 0 and up to 1000, in place of the term
            ``p_norm``.
        checkpoint_every: steps between checkpoints, 1 to 10000: what a killed server costs at most.
        progress_every: steps between progress events, 1 to 10000; None is every slice.
        preview_every: steps between previews, 1 to 10000; None is no preview.

    Raises:
        ContractError: on creation, when a value is out of its range.
    """

    preset: str = DEFAULT_PRESET
    steps: int | None = _option("number of steps", MAX_STEPS, whole=True)
    seconds: float | None = _option("budget of seconds", 86_400)
    target: float | None = _option("target distance", 10)
    weights: Mapping[str, float] = field(default_factory=dict, metadata={"recorded": True})
    clip: float | None = _option("bound of P-norm+", 1000)
    checkpoint_every: int = _option("number of steps between checkpoints", MAX_STEPS, 25, whole=True)
    progress_every: int | None = _option("number of steps between reports", MAX_STEPS, whole=True, recorded=False)
    preview_every: int | None = _option("number of steps between previews", MAX_STEPS, whole=True, recorded=False)

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if value is not None or name == "checkpoint_every":
                limit.check(value)
        for name, weight in self.weights.items():
            if name not in TERMS:
                raise ContractError(f"unknown loss term {shortened(name)}: expected {', '.join(TERMS)}")
            Limit(what=f"weight of {name}", low=WEIGHT.low, high=WEIGHT.high).check(weight)


LIMITS: Final[Mapping[str, Limit]] = {
    option.name: option.metadata["limit"] for option in fields(Options) if "limit" in option.metadata
}
# What an inversion file keeps: not how often a client wants to look.
RECORDED: Final = ("preset", *(option.name for option in fields(Options) if option.metadata.get("recorded")))
