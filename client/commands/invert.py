"""``client invert``: a photo to an inversion file, its picture, and a sheet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from client.api import Inverter
from client.commands.follow import follow, kept, soon
from client.commands.groups import (
    EDIT,
    MethodOptions,
    OutputOptions,
    PictureOptions,
    RefinementOptions,
    ServerOptions,
    connection,
    deadlines,
)
from client.commands.options import group, option, repeated, required, switch
from client.commands.report import Report, parsed_edit, progress, warn
from client.commands.results import edited, place_of, rendered, written
from client.commands.text import ACCESS, PHOTOS, STOPPED
from client.files.photo import Photo
from client.files.sheet import TILE
from client.frames.frame import Frame

MORE = f"Triton's encoder makes the start, and the side-car refines it. {STOPPED} {PHOTOS}"


@dataclass(frozen=True, kw_only=True)
class InvertFlags:
    """The options of ``client invert``."""

    photo: str = required("PHOTO", "an image file")
    crop: str | None = option(
        "--crop",
        "the square to invert, in pixels of the photo as shown (default: the largest centred square)",
        metavar="X,Y,SIZE",
    )
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
    method: MethodOptions = group(MethodOptions, "method")
    refinement: RefinementOptions = group(RefinementOptions, "refinement")
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = InvertFlags


def run(options: InvertFlags) -> Report:
    """Invert a photo, refine it unless that is left out, and edit it."""
    quiet, method, refinement = options.output.json, options.method, options.refinement
    preset = method.preset(refinement)
    wanted = None if preset is None else refinement.chosen(preset=preset)
    crop = Frame.parse_crop(options.crop) if options.crop else None
    edits = [parsed_edit(text, options.output.domain) for text in options.edit]
    photo = Photo.open(options.photo)
    warn(photo)
    frame = crop or Frame.square(photo.size)
    frame.require_photo(photo.size, name=photo.name)
    place, form = (photo, frame) if options.pictures.show == "photo" else None, options.pictures.format
    path = place_of(photo, options.out, force=options.force)
    with Inverter(**connection(options.output, options.server, refinement, refines=not method.fast)) as inverter:
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
            return rendered(
                inverter, path, inversion, edits=edits, place=place, form=form, patience=patience, quiet=quiet
            )
