"""Refines inversions and writes what comes of it: what ``invert`` and ``refine`` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from client.api import Inverter
from client.commands.follow import Goal, follow, kept, labelled, soon, stored
from client.commands.groups import OutputOptions, RefinementOptions, ServerOptions, deadlines
from client.commands.report import Edit, Report, fail
from client.commands.results import rendered
from client.commands.whole import Place
from client.errors import ClientError, OutputError, ServerError
from client.exit_codes import BAD_INPUT, OK, SERVER_TROUBLE
from client.files.formats import Format
from client.files.inversion import Inversion
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.text import quoted

PREVIEW_SIDE: Final = 256


@dataclass(frozen=True, eq=False)
class Job:
    """What to refine, where the result goes, how to edit it, and into which part of the photo."""

    inversion: Inversion
    goal: Goal
    edits: Sequence[Edit] = ()
    place: Place | None = None


def refined(
    inverter: Inverter,
    jobs: Sequence[Job],
    photo: Photo | None,
    wanted: RefineOptions,
    flags: tuple[OutputOptions, ServerOptions, RefinementOptions],
    *,
    form: Format = "png",
    keep_start: bool,
) -> list[Report | ClientError]:
    """Refine inversions of one photo together, and write each; return its report, or why it failed.

    Raises:
        KeyboardInterrupt, ClientError: the command was stopped, or all failed. What they had reached is written.
    """
    output, server, refinement = flags
    render = soon(output, server)
    preview = Path(refinement.preview) if refinement.preview else None
    patience = deadlines(server, refinement).patience
    goals = [job.goal for job in jobs]
    if preview is not None:
        for goal in goals:
            _check_preview(labelled(preview, goal))
    with kept(goals, render) as reached:
        updates = inverter.refine_all([job.inversion for job in jobs], photo, wanted)
        results = follow(updates, goals, reached, preview=preview, keep_start=keep_start, json=output.json)
        problems = [each for each in results if isinstance(each, ClientError)]
        if len(problems) == len(jobs):
            raise problems[0]
        found: list[Report | ClientError] = []
        for job, result in zip(jobs, results, strict=True):
            path = job.goal.path
            if isinstance(result, Inversion):
                found.append(
                    rendered(
                        inverter, path, result, edits=job.edits, place=job.place, form=form, patience=patience,
                        quiet=output.json,
                    )
                )  # fmt: skip
            elif path in reached:
                found.append(type(result)(f"{result}; {stored({path: reached[path]}, render)}"))
            else:
                found.append(result)
            reached.pop(path, None)
    return found


def _check_preview(path: Path) -> None:
    """Refuse to replace a file that is no preview, such as the photo itself.

    Raises:
        OutputError: there is one.
    """
    if not path.is_file():
        return
    with suppress(Exception), Image.open(path, formats=("JPEG",)) as picture:
        if max(picture.size) <= PREVIEW_SIDE:
            return
    raise OutputError(f"cannot write {quoted(path)}: it already exists, and is no preview; name another --preview")


def failures(found: Sequence[Report | ClientError], names: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Say which failed, on the standard error; return them as plain values, and the exit code.

    Args:
        found: what :func:`refined` returned.
        names: what each is called.
    """
    failed, code = [], OK
    for name, each in zip(names, found, strict=True):
        if isinstance(each, ClientError):
            fail(f"{name}: {each}")
            failed.append({"name": name, "kind": type(each).__name__, "message": str(each)})
            code = max(code, SERVER_TROUBLE if isinstance(each, ServerError) else BAD_INPUT)
    return failed, code
