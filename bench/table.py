"""Markdown tables of means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean


def row(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def head(titles: Sequence[str]) -> list[str]:
    """The two lines above the rows."""
    return [row(titles), "|---" * len(titles) + "|"]


def mean(values: Iterable[float | None], form: str) -> str:
    """The mean of the values that were measured, in a format; a dash if none was."""
    known = [value for value in values if value is not None]
    return format(fmean(known), form) if known else "-"
