"""``client faces``: the faces of a photo, numbered as ``--face`` counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from client.api import Inverter
from client.atomic import write_all
from client.commands.groups import OutputOptions, ServerOptions, connection
from client.commands.options import group, option, required, switch
from client.commands.report import Report, progress, warn
from client.commands.text import ACCESS, PHOTOS
from client.files.photo import Photo
from client.files.sheet import png
from client.frames.choice import MORE_FACES
from client.frames.face import Face
from client.frames.frame import fault
from client.text import shown
from protocol.roles import MAX_FACES

MORE = f"Numbers count from the largest face on; `client invert --face` takes them. {PHOTOS}"
# Longer side of the picture of the faces.
SIDE: Final = 1600
_COLOURS: Final = ((0, 200, 83), (255, 255, 255))


@dataclass(frozen=True, kw_only=True)
class FacesFlags:
    """The options of ``client faces``."""

    photo: str = required("PHOTO", "an image file")
    out: str | None = option("--out", "PNG file of the photo with numbered boxes (default: none)", metavar="FILE")
    force: bool = switch("--force", "replace a picture that differs")
    output: OutputOptions = group(OutputOptions)
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = FacesFlags


def run(options: FacesFlags) -> Report:
    """List the faces of a photo."""
    photo = Photo.open(options.photo)
    warn(photo.name, photo.note)
    with (
        Inverter(**connection(options.output, options.server)) as inverter,
        progress("finding faces", 1, json=options.output.json) as bar,
    ):
        faces = inverter.faces(photo)
        bar.update()
    note = MORE_FACES if len(faces) >= MAX_FACES else ""
    warn(photo.name, note)
    width, height = photo.size
    lines = [f"{photo.name} ({width}x{height}): {_counted(len(faces))}"]
    for number, face in enumerate(faces, start=1):
        x, y, w, h = face.box
        why = fault(face.landmarks)
        odd = f", cannot be aligned: {why}" if why else ""
        lines.append(f"  {number:>3}  {w:.0f}x{h:.0f} pixels at {x:.0f},{y:.0f}, score {face.score:.2f}{odd}")
    if options.out is not None:
        write_all({Path(options.out): png(picture(photo.image, faces))}, force=options.force)
        lines.append(f"  picture  {shown(options.out)}")
    data = {
        "photo": {"name": photo.name, "size": [width, height], "sha256": photo.sha256},
        "faces": [{"number": number, **face.report()} for number, face in enumerate(faces, start=1)],
        "picture": options.out,
        "note": note or None,
    }
    return Report(data, lines)


def picture(image: Image.Image, faces: Sequence[Face]) -> Image.Image:
    """Return a photo with a numbered box for each face, of at most ``SIDE`` pixels."""
    scale = min(1.0, SIDE / max(image.size))
    columns, rows = (max(1, round(side * scale)) for side in image.size)
    page = image.resize((columns, rows), Image.Resampling.LANCZOS)
    draw, width = ImageDraw.Draw(page), max(2, round(max(page.size) / 400))
    font = ImageFont.load_default(size=max(12, round(max(page.size) / 50)))
    fill, text = _COLOURS
    for number, face in enumerate(faces, start=1):
        x, y, w, h = (face.box * scale).tolist()
        draw.rectangle((x, y, x + w, y + h), outline=fill, width=width)
        for px, py in face.landmarks * scale:
            draw.ellipse((px - width, py - width, px + width, py + width), fill=fill)
        label = draw.textbbox((x, y), f" {number} ", font=font)
        draw.rectangle(label, fill=fill)
        draw.text((x, y), f" {number} ", font=font, fill=text)
    return page


def _counted(count: int) -> str:
    return "no face" if not count else "1 face" if count == 1 else f"{count} faces"
