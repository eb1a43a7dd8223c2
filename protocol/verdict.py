"""Whether a result is good, in plain words and as one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from protocol.terms import Metrics

Grade = Literal["good", "fair", "poor"]


@dataclass(frozen=True)
class Verdict:
    """How good a result is.

    Attributes:
        grade: in one word.
        reasons: what is wrong with it, the worst first; empty if it is good.
    """

    grade: Grade
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.grade}: {'; '.join(self.reasons)}" if self.reasons else self.grade


@dataclass(frozen=True)
class _Rule:
    """A metric, and from which value on it is fair and poor; ``sign`` is -1 where smaller is better."""

    metric: str
    sign: int
    fair: float
    poor: float
    fair_reason: str
    poor_reason: str


# The limits separate what people score 8 to 10, 5 to 7, and below. SFace's authors call 0.363 the same person.
_RULES: Final = (
    _Rule("landmarks", -1, 0.05, 0.15, "the face is slightly off its place", "the face is not where the photo has it"),
    _Rule("eyes", 1, 0.8, 0.6, "an eye differs from the photo's", "an eye does not look like the photo's"),
    _Rule("identity", 1, 0.8, 0.5, "the likeness is rough", "it looks like another person"),
    _Rule(
        "stlpips_alex",
        -1,
        0.08,
        0.15,
        "some details of the photo are missing",
        "the picture lacks details of the photo",
    ),
)


def verdict(found: Metrics) -> Verdict:
    """Whether a result is good; metrics that are absent say nothing."""
    if found.face is False:
        return Verdict("poor", ("no face is found where the photo has one",))
    poor, fair = [], []
    for rule in _RULES:
        value = getattr(found, rule.metric)
        if value is None:
            continue
        if rule.sign * value < rule.sign * rule.poor:
            poor.append(rule.poor_reason)
        elif rule.sign * value < rule.sign * rule.fair:
            fair.append(rule.fair_reason)
    grade: Grade = "poor" if poor else "fair" if fair else "good"
    return Verdict(grade, (*poor, *fair))


def error(found: Metrics) -> float:
    """One number to compare results for one photo by, 0 for an equal picture; a lost face is worse than any other."""
    lost = 10.0 if found.face is False else 0.0
    unlike = sum(1 - value for value in (found.identity, found.eyes) if value is not None)
    return lost + found.stlpips_alex + (found.landmarks or 0.0) + 0.2 * unlike
