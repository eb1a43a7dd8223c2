"""``client refine``: go on with an inversion, exactly where it was interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.api import Inverter
from client.commands.follow import follow, kept, soon
from client.commands.groups import OutputOptions, RefinementOptions, ServerOptions, connection, deadlines
from client.commands.options import group, option, required, switch
from client.commands.report import Report
from client.commands.results import is_interrupted, place_of_refined, rendered
from client.commands.text import ACCESS, STOPPED
from client.errors import ParameterError
from client.files.inversion import Inversion
from client.files.photo import Photo
from client.text import quoted

MORE = (
    "A finished refinement, an inversion of --fast, or another --preset starts a new one. Options that INVERSION "
    f"records are the defaults where it goes on. {STOPPED}"
)


@dataclass(frozen=True, kw_only=True)
class RefineFlags:
    """The options of ``client refine``."""

    inversion: str = required("INVERSION", "an inversion file, as written by invert")
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
    """Refine an inversion, going on exactly where it was interrupted."""
    source, refinement, quiet = Path(options.inversion), options.refinement, options.output.json
    inversion = Inversion.load(source)
    before = inversion.refinement
    wanted = refinement.chosen(before.options if before is not None and is_interrupted(inversion) else None)
    photo = Photo.open(options.photo) if options.photo else None
    if photo is None and inversion.target is None:
        raise ParameterError(
            f"{quoted(source)} does not hold its photo: pass --photo with {quoted(inversion.photo_name)} itself"
        )
    path = place_of_refined(source, inversion, options.out, force=options.force)
    with (
        Inverter(**connection(options.output, options.server, refinement, refines=True)) as inverter,
        kept(path, soon(options.output, options.server)) as reached,
    ):
        events = inverter.refine(inversion, photo, wanted)
        preview = Path(refinement.preview) if refinement.preview else None
        inversion = follow(events, reached, preview=preview, keep_start=False, json=quiet)
        patience = deadlines(options.server, refinement).patience
        return rendered(inverter, path, inversion, patience=patience, quiet=quiet)
