"""``client edit``: an inversion edited along a direction, or those of several faces of a photo together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.api import Inverter
from client.atomic import Draft
from client.commands.groups import OutputOptions, PictureOptions, ServerOptions, connection
from client.commands.options import REQUIRED, group, option, required, switch
from client.commands.report import Edit, Edited, Report, add_edits, distinct, edit_lines, progress
from client.commands.text import ACCESS
from client.commands.whole import Shown, changing, edited_together, photo_of, place_in
from client.errors import ParameterError
from client.files import direction as directions
from client.files.inversion import SUFFIX, Inversion
from client.files.names import distinct_part, stem_of
from client.files.sheet import Picture, png, sheet
from client.text import quoted, shown
from client.triton.checks import MAX_STRENGTH

MORE = ""


@dataclass(frozen=True, kw_only=True)
class EditFlags:
    """The options of ``client edit``."""

    inversion: list[str] = required(
        "INVERSION",
        "an inversion file, as written by invert; several of one photo, as of `invert --face all`, are edited together",
        nargs="+",
    )
    direction: tuple[str, ...] = option(
        "--direction",
        "a name from `client directions`, or your own .safetensors file",
        default=REQUIRED,
        action="append",
        metavar="NAME",
    )
    strength: tuple[float, ...] = option(
        "--strength",
        f"in the direction's units, from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}; repeatable (--strength -3)",
        default=REQUIRED,
        type=float,
        action="append",
        metavar="S",
    )
    out: str | None = option(
        "--out",
        "folder for the results, created if missing (default: out/INVERSION/, without its suffix)",
        metavar="DIR",
    )
    photo: str | None = option(
        "--photo",
        "the photo that was inverted (default: the file of its name beside INVERSION or in this folder)",
        metavar="PHOTO",
    )
    force: bool = switch("--force", "replace pictures that differ")
    pictures: PictureOptions = group(PictureOptions)
    output: OutputOptions = group(OutputOptions)
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = EditFlags


def run(options: EditFlags) -> Report:
    """Edit an inversion along one direction."""
    strengths = distinct(options.strength)
    if len(options.direction) > 1:
        raise ParameterError(
            f"two directions in one edit, {' and '.join(map(quoted, options.direction[:2]))}: run `client edit` once "
            "for each"
        )
    direction = directions.load(options.output.domain, options.direction[0])
    inversions = [Inversion.load(path) for path in options.inversion]
    if options.pictures.show == "render" and options.photo is not None:
        raise ParameterError("--photo does nothing with --show render")
    if len(inversions) > 1:
        return _together(options, inversions, (direction, strengths))
    (file,), (inversion,) = options.inversion, inversions
    place = place_in(inversion, Path(file), options.photo) if options.pictures.show == "photo" else None
    stem = stem_of(Path(file).name, SUFFIX)
    folder = Path(options.out or Path("out") / stem)
    with (
        Inverter(**connection(options.output, options.server)) as inverter,
        progress("editing", 2, json=options.output.json) as bar,
    ):
        source, place = changing(inverter, inversion, place)
        plain = inverter.render(source.editable)
        bar.update()
        pictures = Shown(place, plain, source.pose)
        images = inverter.edit(source, pictures.rendered(direction), strengths)
        edited = Edited(direction, strengths, pictures(direction, strengths, list(images)))
        bar.update()
        first = ("inversion", plain) if place is None else ("photo", place[0].image)
        return _written(options, folder / stem, first, edited, inversion)


def _together(options: EditFlags, inversions: list[Inversion], edit: Edit) -> Report:
    """Edit several faces of a photo in one picture."""
    if options.pictures.show == "render":
        raise ParameterError("several inversions are edited in their photo: --show render takes one inversion")
    photo = photo_of(inversions, Path(options.inversion[0]), options.photo)
    stem = stem_of(photo.name, Path(photo.name).suffix)
    prefix = Path(options.out or Path("out") / stem) / f"{stem}.faces"
    with (
        Inverter(**connection(options.output, options.server)) as inverter,
        edited_together(inverter, photo, inversions, [edit], quiet=options.output.json) as (edited,),
    ):
        return _written(options, prefix, ("photo", photo.image), edited, inversions[0])


def _written(
    options: EditFlags, prefix: Path, first: tuple[str, Picture], edited: Edited, inversion: Inversion
) -> Report:
    """Write the pictures, and a sheet of them behind a first tile."""
    tiles: list[tuple[str, Picture]] = [first]
    with Draft(force=options.force) as draft:
        reports = add_edits(draft, tiles, prefix, [edited], options.pictures.format)
        page = png(sheet(tiles))
        name = f"{prefix.name}.{distinct_part(edited.direction.name)}"
        sheet_path = _sheet_path(prefix.with_name(name), edited.strengths, page)
        draft.add(sheet_path, page)
        draft.publish()
    data = {"sheet": str(sheet_path), "edits": reports, "generator": inversion.generator}
    lines = [f"Edited {inversion.photo_name}:", f"  sheet           {shown(sheet_path)}", *edit_lines(reports)]
    return Report(data, lines)


def _sheet_path(prefix: Path, strengths: list[float], page: bytes) -> Path:
    """Return the sheet's name; with the strengths where another edit along the direction has the plain name."""
    plain = prefix.with_name(f"{prefix.name}.sheet.png")
    if not plain.exists() or plain.read_bytes() == page:
        return plain
    numbers = distinct_part("".join(f"{strength:+.9g}" for strength in strengths))
    return prefix.with_name(f"{prefix.name}{numbers}.sheet.png")
