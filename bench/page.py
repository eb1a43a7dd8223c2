"""Documentation pages with a section that a benchmark writes, between two marks."""

from __future__ import annotations

from pathlib import Path

from client.atomic import write_all


class PageError(ValueError):
    """A page does not contain the two marks."""


def marks(name: str) -> tuple[str, str]:
    """The lines before and after the section."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def replaced(text: str, between: str, name: str) -> str:
    """Replace the section between the two marks of ``text``.

    Raises:
        PageError: the marks do not occur once each, in order.
    """
    start, end = marks(name)
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed and text.count(start) == text.count(end) == 1):
        raise PageError(f"the file must contain the lines {start} and {end}, once each and in this order")
    return f"{before}{start}\n{between.strip()}\n{end}{after}"


def check(path: Path | None, name: str) -> None:
    """Raise what :func:`write` would raise for a file; nothing without one."""
    if path:
        replaced(path.read_text(), "", name)


def write(path: Path | None, between: str, name: str) -> None:
    """Replace the section of a file, if one is given."""
    if path:
        write_all({path: replaced(path.read_text(), between, name).encode()})
