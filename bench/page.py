"""Pages of the documentation that a measurement writes a part of, between two marks."""

from __future__ import annotations

from pathlib import Path


class PageError(ValueError):
    """A page does not hold the two marks."""


def marks(name: str) -> tuple[str, str]:
    """The lines before and behind the part."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def replaced(text: str, between: str, name: str) -> str:
    """Put ``between`` in place of what stands between the two marks of ``text``.

    Raises:
        PageError: the marks are not there, once each and in order.
    """
    start, end = marks(name)
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed and text.count(start) == text.count(end) == 1):
        raise PageError(f"The file must hold the lines {start} and {end} once each, in this order.")
    return f"{before}{start}\n{between.strip()}\n{end}{after}"


def write(path: Path, between: str, name: str) -> None:
    """Replace what stands between the marks of a file, under a temporary name that is then renamed."""
    text = replaced(path.read_text(), between, name)
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(text)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
