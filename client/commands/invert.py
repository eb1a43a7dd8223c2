"""The commands that make inversions: ``invert``, by the encoder alone or with a refinement, and ``refine``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.api import Inverter
from client.commands.refining import account_lines, chosen, kept, patiently, refined, refuse_choices
from client.commands.report import Edited, Report, add_edits, connect, distinct, edit_lines, progress, stem_of, timeout
from client.errors import ParameterError
from client.files import direction as directions
from client.files.atomic import shown, write_all
from client.files.direction import Direction
from client.files.inversion import SUFFIX, Inversion
from client.files.photo import Crop, Photo
from client.files.sheet import TILE, png, sheet
from client.triton.session import checked_method
from protocol.methods import METHODS

Edit = tuple[Direction, list[float]]
Image8 = NDArray[np.uint8]


def invert(options: argparse.Namespace) -> Report:
    """Invert a photo, refine it unless that is left out, and edit it."""
    preset = preset_of(options)
    wanted = None if preset is None else chosen(options, preset=preset)
    crop = Crop.parse(options.crop) if options.crop else None
    edits = [parsed_edit(text, options.domain) for text in options.edit]
    photo = Photo.open(options.photo)
    square = photo.square(crop)
    stem = stem_of(photo.name, Path(photo.name).suffix)
    folder = Path(options.out or Path("out") / stem)
    path = folder / f"{stem}{SUFFIX}"
    with connect(options) as inverter:
        start = partial(inverter.invert, photo, square, method=options.method, cut=options.cut)
        if wanted is None:
            with progress("inverting", 1 + len(edits), options) as bar:
                result = start()
                bar.update()
                edited = [_edited(inverter, result.inversion, edit, bar) for edit in edits]
            tile = photo.pixels(square, TILE)
            return _written(path, result.inversion, result.reconstruction, tile=tile, edited=edited)
        with progress("inverting", 1, options):
            inversion = start().inversion
        for direction, _ in edits:
            inverter.check_edit(inversion, direction)
        with kept(path) as reached:
            inversion = refined(inverter, inversion, photo, options, reached, wanted=wanted, keep_start=True)
            return _rendered(inverter, path, inversion, edits=edits, options=options)


def refine(options: argparse.Namespace) -> Report:
    """Refine an inversion, going on exactly where it was interrupted."""
    source = Path(options.inversion)
    inversion = Inversion.load(source)
    before = inversion.refinement
    wanted = chosen(options, before.options if before is not None and before.reason is None else None)
    photo = Photo.open(options.photo) if options.photo else None
    if photo is None and inversion.target is None:
        raise ParameterError(
            f"{shown(source)} does not hold its photo, so --photo has to name {inversion.photo_name} itself."
        )
    path = Path(options.out) / f"{stem_of(source.name, SUFFIX)}{SUFFIX}" if options.out else source
    with connect(options) as inverter, kept(path) as reached:
        inversion = refined(inverter, inversion, photo, options, reached, wanted=wanted, keep_start=False)
        return _rendered(inverter, path, inversion, edits=[], options=options)


def _rendered(
    inverter: Inverter,
    path: Path,
    inversion: Inversion,
    *,
    edits: Sequence[Edit],
    options: argparse.Namespace,
) -> Report:
    """Have Triton render what was refined, and write it: what is shown is what the served generator shows."""
    seconds = timeout(options).patience
    with progress("rendering", 1 + len(edits), options) as bar:
        reconstruction = patiently(partial(inverter.render, inversion), seconds=seconds)
        bar.update()
        edited = [patiently(partial(_edited, inverter, inversion, edit, bar), seconds=seconds) for edit in edits]
    return _written(path, inversion, reconstruction, tile=inversion.target_pixels(), edited=edited)


def _written(
    path: Path, inversion: Inversion, reconstruction: Image8, *, tile: Image8, edited: Sequence[Edited]
) -> Report:
    """Write the inversion to ``path``, and its pictures beside it."""
    stem = stem_of(path.name, SUFFIX)
    reconstruction_path = path.with_name(f"{stem}.reconstruction.png")
    sheet_path = path.with_name(f"{stem}.sheet.png")
    files = {path: inversion.encode(), reconstruction_path: png(reconstruction)}
    tiles = [("photo", tile), ("inversion", reconstruction)]
    reports = add_edits(files, tiles, path.with_name(stem), edited)
    files[sheet_path] = png(sheet(tiles))
    write_all(files)
    crop, (width, height) = inversion.crop, inversion.photo_size
    data: dict[str, Any] = {
        "inversion": str(path),
        "reconstruction": str(reconstruction_path),
        "sheet": str(sheet_path),
        "edits": reports,
        "photo": {"name": inversion.photo_name, "size": [width, height], "sha256": inversion.photo_sha256},
        "crop": [crop.x, crop.y, crop.size],
        "method": inversion.method,
        "domain": inversion.domain,
        "generator": inversion.generator,
        "cut": inversion.cut,
        "versions": inversion.versions,
    }
    lines = [
        f"Inverted {inversion.photo_name} ({width}x{height}, square {crop}):",
        f"  inversion       {shown(path)}",
        f"  reconstruction  {shown(reconstruction_path)}",
        f"  sheet           {shown(sheet_path)}",
        *edit_lines(reports),
    ]
    if inversion.refinement is not None:
        data["refinement"] = json.loads(inversion.refinement.encode())
        lines += account_lines(inversion.refinement)
    return Report(data, lines)


def _edited(inverter: Inverter, inversion: Inversion, edit: Edit, bar: Any) -> Edited:
    direction, strengths = edit
    images = inverter.edit(inversion, direction, strengths)
    bar.update()
    return Edited(direction, strengths, images)


def preset_of(options: argparse.Namespace) -> str | None:
    """The recipe of the command line's method; None where nothing is refined.

    Raises:
        ParameterError: the method has no such cut, needs its refinement, or options are for one that there is not.
    """
    checked_method(options.method, options.cut)
    method = METHODS[options.method]
    if not options.fast and method.preset is not None:
        return method.preset
    if method.start == "mean":
        raise ParameterError(f"The method {options.method} has no encoder, so there is nothing for --fast to do.")
    refuse_choices(options)
    return None


def parsed_edit(text: str, domain: str) -> Edit:
    """Read ``NAME=S,S``: a direction, and its strengths.

    Raises:
        ParameterError, DirectionError: it is something else, or there is no such direction.
    """
    name, separator, numbers = text.rpartition("=")
    try:
        strengths = [float(number) for number in numbers.split(",")]
    except ValueError:
        strengths = []
    if not (separator and name and strengths):
        raise ParameterError(f"An edit is name=strength,strength, for example age=-3,3, not '{shown(text)}'.")
    return directions.load(domain, name), distinct(strengths)
