"""``client refine``: refines inversions, or continues where they were interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.api import Inverter
from client.commands.follow import Goal
from client.commands.groups import OutputOptions, RefinementOptions, ServerOptions, connection
from client.commands.options import group, option, required, switch
from client.commands.refining import Job, failures, refined
from client.commands.report import Report
from client.commands.results import is_interrupted, place_of_refined
from client.commands.text import ACCESS, STOPPED
from client.commands.whole import check_one_photo
from client.errors import ParameterError
from client.files.inversion import SUFFIX, Inversion
from client.files.names import stem_of
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.text import quoted

MORE = (
    "A finished refinement, an inversion of --fast, or another --preset starts a new one. When it continues, the "
    f"options recorded in INVERSION are the defaults. {STOPPED}"
)


@dataclass(frozen=True, kw_only=True)
class RefineFlags:
    """The options of ``client refine``."""

    inversion: list[str] = required(
        "INVERSION",
        "an inversion file, as written by invert; several of one photo, as of `invert --face all`, share a batch",
        nargs="+",
    )
    photo: str | None = option(
        "--photo", "the photo that was inverted; needed for an inversion of --fast, which has none", metavar="PHOTO"
    )
    out: str | None = option(
        "--out",
        "folder for the results, created if missing (default: an interrupted INVERSION is replaced, a finished one "
        "gets INVERSION.refined beside it)",
        metavar="DIR",
    )
    force: bool = switch("--force", "replace a finished inversion, and remove the pictures of its edits")
    output: OutputOptions = group(OutputOptions)
    refinement: RefinementOptions = group(RefinementOptions, "refinement")
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = RefineFlags


def run(options: RefineFlags) -> Report:
    """Refine inversions, or continue exactly where they were interrupted."""
    sources, refinement = [Path(each) for each in options.inversion], options.refinement
    inversions = [Inversion.load(source) for source in sources]
    check_one_photo(inversions)
    wanted = _chosen(inversions, refinement)
    photo = Photo.open(options.photo) if options.photo else None
    jobs = []
    for source, inversion in zip(sources, inversions, strict=True):
        if photo is None and inversion.target is None:
            raise ParameterError(
                f"{quoted(source)} does not hold its photo: pass --photo with {quoted(inversion.photo_name)} itself"
            )
        path = place_of_refined(source, inversion, options.out, force=options.force)
        jobs.append(Job(inversion, Goal(path, stem_of(source.name, SUFFIX) if len(sources) > 1 else "")))
    if twice := next((each for each in jobs if [job.goal.path for job in jobs].count(each.goal.path) > 1), None):
        raise ParameterError(f"two results would go to {quoted(twice.goal.path)}: refine one inversion at a time")
    flags = options.output, options.server, refinement
    with Inverter(**connection(options.output, options.server, refinement, refines=True)) as inverter:
        reports = refined(inverter, jobs, photo, wanted, flags, keep_start=False)
    made = [report for report in reports if isinstance(report, Report)]
    if len(jobs) == 1:
        return made[0]
    failed, code = failures(reports, [quoted(source) for source in sources])
    data = {"inversions": [report.data for report in made], "failed": failed}
    return Report(data, [line for report in made for line in report.lines], code)


def _chosen(inversions: list[Inversion], refinement: RefinementOptions) -> RefineOptions:
    """Return the options of all inversions.

    Raises:
        ParameterError: a value is out of range, or the inversions record different ones.
    """
    found = []
    for inversion in inversions:
        before = inversion.refinement
        found.append(refinement.chosen(before.options if before is not None and is_interrupted(inversion) else None))
    if any(each != found[0] for each in found):
        raise ParameterError("the inversions record different options of their refinements: refine one at a time")
    return found[0] if refinement.seconds is None else found[0].shared(len(inversions))
