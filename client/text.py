"""Foreign text in messages: one printable, bounded line."""

from __future__ import annotations

import os
from collections.abc import Sequence


def shown(text: str | os.PathLike[str], *, limit: int = 200) -> str:
    """Return a path or a foreign text as one printable line of at most ``limit`` characters."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(os.fspath(text).split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


def quoted(text: str | os.PathLike[str], *, limit: int = 200) -> str:
    """Return :func:`shown` between backticks."""
    return f"`{shown(text, limit=limit)}`"


def reason(problem: Exception) -> str:
    """Return why an operation of the system failed: lower case, without a full stop."""
    text = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return shown(text).rstrip(".").lower()


def clause(sentence: object) -> str:
    """Return a sentence as a part of a message: without its capital and its full stop."""
    text = str(sentence).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def listed(parts: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, or ``a, b and c``."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
