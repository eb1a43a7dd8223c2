"""``client invert``: a photo to an inversion file, its picture, and a sheet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from client.api import Inverter
from client.atomic import write_all
from client.commands.follow import follow, kept, soon
from client.commands.groups import (
    EDIT,
    FrameOptions,
    MethodOptions,
    OutputOptions,
    PictureOptions,
    RefinementOptions,
    ServerOptions,
    connection,
    deadlines,
)
from client.commands.options import group, option, repeated, required, switch
from client.commands.report import Edit, Report, add_edits, edit_lines, parsed_edit, progress, warn
from client.commands.results import clear_edits, edited, place_of, rendered, written
from client.commands.text import ACCESS, PHOTOS, STOPPED
from client.commands.whole import edited_together
from client.files.inversion import SUFFIX, Inversion
from client.files.names import stem_of
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.files.sheet import TILE, Picture, png, sheet
from client.frames.choice import ALL, LARGEST, framing
from client.frames.frame import Frame

MORE = f"Triton's encoder makes the start, and the side-car refines it. {STOPPED} {PHOTOS}"


@dataclass(frozen=True, kw_only=True)
class InvertFlags:
    """The options of ``client invert``."""

    photo: str = required("PHOTO", "an image file")
    edit: tuple[str, ...] = repeated(
        "--edit",
        "also edit along a direction, a name or a .safetensors file, by these strengths; repeatable (age=-3,3)",
        metavar=EDIT,
    )
    out: str | None = option(
        "--out", "folder for the results, created if missing (default: out/PHOTO/, without its suffix)", metavar="DIR"
    )
    force: bool = switch("--force", "replace a finished inversion of the same photo")
    pictures: PictureOptions = group(PictureOptions)
    output: OutputOptions = group(OutputOptions)
    framing: FrameOptions = group(FrameOptions, "frame")
    method: MethodOptions = group(MethodOptions, "method")
    refinement: RefinementOptions = group(RefinementOptions, "refinement")
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = InvertFlags


def run(options: InvertFlags) -> Report:
    """Invert a photo, refine it unless that is left out, and edit it."""
    method, refinement = options.method, options.refinement
    preset = method.preset(refinement)
    wanted = None if preset is None else refinement.chosen(preset=preset)
    frame = options.framing.wanted()
    edits = [parsed_edit(text, options.output.domain) for text in options.edit]
    photo = Photo.open(options.photo)
    warn(photo.name, photo.note)
    if not frame.needs_faces:
        # Refused here, a crop outside the photo asks no server.
        framing(frame, photo.size, None, name=photo.name)
    with Inverter(**connection(options.output, options.server, refinement, refines=not method.fast)) as inverter:
        found = inverter.frames(photo, frame)
        warn(photo.name, found.note)
        several = frame.face != LARGEST and found.numbers
        parts = [f"face-{number}" for number in found.numbers] if several else [""]
        # Every place is checked before anything is inverted.
        paths = [place_of(photo, options.out, part=part, force=options.force) for part in parts]
        together = frame.face == ALL and options.pictures.show == "photo"
        reports = [
            _inverted(options, inverter, photo, each, path=path, wanted=wanted, edits=[] if together else edits)
            for each, path in zip(found.frames, paths, strict=True)
        ]
        if together:
            whole = _together(options, inverter, photo, paths, edits)
    for report, number in zip(reports, found.numbers, strict=False):
        report.data["face"] = number
    for report in reports:
        report.data["note"] = found.note or None
    if frame.face != ALL:
        return reports[0]
    lines = [line for report in reports for line in report.lines]
    data = {"inversions": [report.data for report in reports], "note": found.note or None}
    if together:
        data |= whole
        lines += [f"Edited {photo.name}:", *edit_lines(whole["edits"])] if edits else []
    return Report(data, lines)


def _together(
    options: InvertFlags, inverter: Inverter, photo: Photo, paths: list[Path], edits: list[Edit]
) -> dict[str, Any]:
    """Put the edits of all faces into one picture each; return what the report says of them."""
    inversions = [Inversion.load(path) for path in paths]
    stem = stem_of(photo.name, Path(photo.name).suffix)
    prefix = paths[0].with_name(f"{stem}.faces")
    clear_edits(prefix.with_name(f"{prefix.name}{SUFFIX}"))
    if not edits:
        return {"edits": [], "sheet": None}
    edited = edited_together(inverter, photo, inversions, edits, quiet=options.output.json)
    files: dict[Path, bytes] = {}
    tiles: list[tuple[str, Picture]] = [("photo", photo.image)]
    reports = add_edits(files, tiles, prefix, edited, options.pictures.format)
    sheet_path = prefix.with_name(f"{prefix.name}.sheet.png")
    files[sheet_path] = png(sheet(tiles))
    write_all(files)
    return {"edits": reports, "sheet": str(sheet_path)}


def _inverted(
    options: InvertFlags,
    inverter: Inverter,
    photo: Photo,
    frame: Frame,
    *,
    path: Path,
    wanted: RefineOptions | None,
    edits: list[Edit],
) -> Report:
    """Invert one frame of a photo."""
    quiet, method, refinement = options.output.json, options.method, options.refinement
    place, form = (photo, frame) if options.pictures.show == "photo" else None, options.pictures.format
    start = partial(inverter.invert, photo, frame, method=method.method, cut=method.cut)
    if wanted is None:
        with progress("inverting", 1 + len(edits), json=quiet) as bar:
            result = start()
            bar.update()
            plain = result.reconstruction
            done = [edited(inverter.edit(result.inversion, *each), each, plain, place, bar) for each in edits]
        tile = photo.pixels(frame, TILE)
        return written(path, result.inversion, plain, tile=tile, edits=done, form=form)
    with progress("inverting", 1, json=quiet):
        inversion = start().inversion
    for direction, _ in edits:
        inverter.check_edit(inversion, direction)
    with kept(path, soon(options.output, options.server)) as reached:
        events = inverter.refine(inversion, photo, wanted)
        preview = Path(refinement.preview) if refinement.preview else None
        inversion = follow(events, reached, preview=preview, keep_start=True, json=quiet)
        patience = deadlines(options.server, refinement).patience
        return rendered(inverter, path, inversion, edits=edits, place=place, form=form, patience=patience, quiet=quiet)
