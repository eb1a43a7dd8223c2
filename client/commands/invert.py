"""``client invert``: a photo to an inversion file, its picture, and a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.api import Inverter
from client.atomic import Draft
from client.commands.follow import Goal
from client.commands.groups import (
    EDIT,
    FrameOptions,
    MethodOptions,
    OutputOptions,
    PictureOptions,
    RefinementOptions,
    ServerOptions,
    connection,
)
from client.commands.options import group, option, repeated, required, switch
from client.commands.refining import Job, failures, refined
from client.commands.report import Edit, Edited, Report, add_edits, edit_lines, parsed_edit, progress, warn
from client.commands.results import clear_edits, place_of, written
from client.commands.text import ACCESS, PHOTOS, STOPPED
from client.commands.whole import Place, Shown, changing, edited_together
from client.errors import ClientError
from client.files.inversion import SUFFIX, Inversion
from client.files.names import stem_of
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.files.sheet import TILE, Picture, png, sheet
from client.frames.choice import ALL, LARGEST, Framing, framing
from client.frames.frame import Frame
from client.text import quoted
from client.triton.status import InversionResult

MORE = f"Triton's networks make the start, and the side-car refines it. {STOPPED} {PHOTOS}"


@dataclass(frozen=True, kw_only=True)
class InvertFlags:
    """The options of ``client invert``."""

    photo: str = required("PHOTO", "an image file")
    edit: tuple[str, ...] = repeated(
        "--edit",
        "also edit along a direction, a name or a .safetensors file, by these strengths; repeatable (age=-2,2)",
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
    """Invert a photo, refine it except with ``--fast``, and edit it."""
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
        making = _Making(options, inverter, photo, edits, together=together)
        if wanted is None:
            reports: list[Report | ClientError] = [making.fast(*each) for each in zip(found.frames, paths, strict=True)]
        else:
            goals = [Goal(path, part if frame.face == ALL else "") for path, part in zip(paths, parts, strict=True)]
            reports = making.refined(found.frames, goals, wanted)
        whole = making.whole([path for path, each in zip(paths, reports, strict=True) if isinstance(each, Report)])
    return _report(photo, found, reports, whole, several=frame.face == ALL)


def _report(
    photo: Photo,
    found: Framing,
    reports: Sequence[Report | ClientError],
    whole: dict[str, Any] | None,
    *,
    several: bool,
) -> Report:
    """Return the report of all frames, and say which failed."""
    name = quoted(photo.name)
    names = [f"face {number} of {name}" for number in found.numbers] or [name]
    for number, report in zip(found.numbers, reports, strict=bool(found.numbers)):
        if isinstance(report, Report):
            report.data["face"] = number
    made = [report for report in reports if isinstance(report, Report)]
    for report in made:
        report.data["note"] = found.note or None
    if not several:
        return made[0]
    failed, code = failures(reports, names)
    data = {"inversions": [report.data for report in made], "failed": failed, "note": found.note or None}
    lines = [line for report in made for line in report.lines]
    if whole is not None:
        data |= whole
        lines += [f"Edited {photo.name}:", *edit_lines(whole["edits"])] if whole["edits"] else []
    return Report(data, lines, code)


@dataclass(frozen=True, eq=False)
class _Making:
    """Inverts frames of a photo; ``together`` puts the edits of all into one picture each."""

    options: InvertFlags
    inverter: Inverter
    photo: Photo
    edits: list[Edit]
    together: bool

    def fast(self, frame: Frame, path: Path) -> Report:
        """Invert one frame without refinement."""
        edits, place = self._own(frame)
        with progress("inverting", 1 + len(edits), json=self.options.output.json) as bar:
            result = self._start(frame)
            bar.update()
            plain, source = result.reconstruction, result.inversion
            if edits and source.faithful is not None:
                source, place = changing(self.inverter, source, place)
                plain = self.inverter.render(source.editable)
            shown, done = Shown(place, plain, source.pose), []
            for direction, strengths in edits:
                images = self.inverter.edit(source, shown.rendered(direction), strengths)
                done.append(Edited(direction, strengths, shown(direction, strengths, list(images))))
                bar.update()
            tile, form = self.photo.pixels(frame, TILE), self.options.pictures.format
            return written(path, result.inversion, result.reconstruction, tile=tile, edits=done, form=form)

    def refined(
        self, frames: Sequence[Frame], goals: Sequence[Goal], wanted: RefineOptions
    ) -> list[Report | ClientError]:
        """Invert frames one after the other, and refine them together."""
        options, jobs = self.options, []
        with progress("inverting", len(frames), json=options.output.json) as bar:
            for frame, goal in zip(frames, goals, strict=True):
                jobs.append(Job(self._start(frame).inversion, goal, *self._own(frame)))
                bar.update()
        for direction, _ in self.edits:
            self.inverter.check_edit(jobs[0].inversion, direction)
        flags = options.output, options.server, options.refinement
        wanted, form = wanted.shared(len(jobs)), options.pictures.format
        return refined(self.inverter, jobs, self.photo, wanted, flags, form=form, keep_start=True)

    def whole(self, paths: Sequence[Path]) -> dict[str, Any] | None:
        """Put the edits of all faces into one picture each; return what the report says of them."""
        if not self.together:
            return None
        photo, pictures = self.photo, self.options.pictures
        stem = stem_of(photo.name, Path(photo.name).suffix)
        prefix = paths[0].with_name(f"{stem}.faces")
        clear_edits(prefix.with_name(f"{prefix.name}{SUFFIX}"))
        if not self.edits:
            return {"edits": [], "sheet": None}
        inversions = [Inversion.load(path) for path in paths]
        tiles: list[tuple[str, Picture]] = [("photo", photo.image)]
        sheet_path = prefix.with_name(f"{prefix.name}.sheet.png")
        quiet = self.options.output.json
        with Draft() as draft, edited_together(self.inverter, photo, inversions, self.edits, quiet=quiet) as done:
            reports = add_edits(draft, tiles, prefix, done, pictures.format)
            draft.add(sheet_path, png(sheet(tiles)))
            draft.publish()
        return {"edits": reports, "sheet": str(sheet_path)}

    def _start(self, frame: Frame) -> InversionResult:
        return self.inverter.invert(self.photo, frame, method=self.options.method.method, cut=self.options.method.cut)

    def _own(self, frame: Frame) -> tuple[list[Edit], Place | None]:
        """Return the edits that are of one frame alone, and where they go."""
        if self.together:
            return [], None
        return self.edits, (self.photo, frame) if self.options.pictures.show == "photo" else None
