"""What commands give back: their report, their exit code, and the pictures of edits."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client.atomic import Draft
from client.errors import ParameterError
from client.exit_codes import OK
from client.files import direction as directions
from client.files.direction import Direction
from client.files.formats import FORMATS, Format
from client.files.names import distinct_part
from client.files.sheet import TILE, Picture, fitted, save
from client.text import quoted, shown
from client.triton.checks import checked_strengths

Edit = tuple[Direction, list[float]]


@dataclass(frozen=True)
class Report:
    """What a command did: for machines, for people, and the exit code."""

    data: dict[str, Any]
    lines: list[str]
    code: int = OK


@dataclass(frozen=True, eq=False)
class Edited:
    """The pictures along one direction: ``images``, uint8 RGB [H, W, 3] each, one for each strength.

    They may be made as they are asked for, once: one large photo at a time fits into memory.
    """

    direction: Direction
    strengths: list[float]
    images: Iterable[Picture]


def progress(doing: str, total: int | None, *, json: bool) -> Any:
    """Return a progress bar, hidden without a terminal and with ``--json``."""
    return tqdm(total=total, desc=doing, leave=False, disable=json or not sys.stderr.isatty())


def warn(photo: str, note: str) -> None:
    """Print a note about a photo to standard error; does nothing without one."""
    if note:
        with suppress(OSError):
            print(f"warning: {quoted(photo)}: {note}", file=sys.stderr)


def fail(message: str) -> None:
    """Say what failed, on the standard error, where the command continues."""
    with suppress(OSError):
        print(f"error: {message}", file=sys.stderr)


def distinct(strengths: Sequence[float]) -> list[float]:
    """Return the strengths in the order given, each once: every strength has its own file."""
    checked_strengths(strengths)
    return list(dict.fromkeys(strengths))


def parsed_edit(text: str, domain: str) -> Edit:
    """Read ``NAME=S,S``: a direction, and its strengths.

    Raises:
        ParameterError: the text is not of that form.
        DirectionError: there is no such direction.
    """
    name, separator, numbers = text.rpartition("=")
    try:
        strengths = [float(number) for number in numbers.split(",")]
    except ValueError:
        strengths = []
    if not (separator and name and strengths):
        raise ParameterError(f"invalid --edit {quoted(text)}: expected name=strength,strength, for example age=-2,2")
    return directions.load(domain, name), distinct(strengths)


def add_edits(
    draft: Draft,
    tiles: list[tuple[str, Picture]],
    prefix: Path,
    edited: Sequence[Edited],
    form: Format = "png",
) -> list[dict[str, Any]]:
    """Write the edits' files, and add their tiles; return what the report says of them."""
    reports = []
    for done in edited:
        name, images = done.direction.name, iter(done.images)
        for strength in done.strengths:
            path = prefix.with_name(f"{prefix.name}.{distinct_part(name)}{strength:+.9g}{FORMATS[form]}")
            image = next(images)
            draft.add(path, partial(save, image, form))
            tiles.append((f"{name} {strength:+.9g}", fitted(image, TILE)))
            reports.append({"direction": name, "strength": strength, "image": str(path)})
            # Before the next one is made: it may be a large photo.
            del image
    return reports


def edit_lines(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a report that name the edits' files."""
    return [f"  {report['direction']} {report['strength']:+.9g}:  {shown(report['image'])}" for report in reports]
