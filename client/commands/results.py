"""The files that ``invert`` and ``refine`` write, and what they may replace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.api import Inverter
from client.atomic import Draft, refuse_to_replace
from client.commands.follow import account_lines, patiently
from client.commands.report import Edit, Edited, Report, add_edits, edit_lines, progress
from client.commands.whole import Place, Shown
from client.errors import InversionError
from client.files.formats import Format
from client.files.inversion import SUFFIX, Inversion
from client.files.names import stem_of
from client.files.photo import Photo
from client.files.sheet import Picture, png, sheet
from client.text import shown
from protocol.verdict import verdict

Image8 = NDArray[np.uint8]


def place_of(photo: Photo, out: str | None, *, part: str = "", force: bool) -> Path:
    """Return where the inversion of a photo, or of a ``part`` of it, goes.

    Another photo of the same name gets a digest.

    Raises:
        OutputError: a finished inversion of this photo is there, and ``force`` is off.
    """
    stem = stem_of(photo.name, Path(photo.name).suffix)
    end = f".{part}" if part else ""
    path = _in(out, stem, end)
    if force:
        return path
    if (there := _there(path)) is not None and there.photo_sha256 != photo.sha256:
        path = _in(out, f"{stem}-{photo.sha256[:8]}", end)
        there = _there(path)
    if there is None or not is_interrupted(there):
        refuse_to_replace([path])
    return path


def place_of_refined(source: Path, inversion: Inversion, out: str | None, *, force: bool) -> Path:
    """Return where a refined inversion goes: over an interrupted one, and beside a finished one.

    Raises:
        OutputError: a finished inversion is there, and ``force`` is off.
    """
    stem = stem_of(source.name, SUFFIX)
    if out is not None:
        path = Path(out) / f"{stem}{SUFFIX}"
        if not force and path != source:
            refuse_to_replace([path])
        return path
    if force:
        return source
    edits = _edits(source)
    # Edits of the inversion as it was would not match its new picture.
    if is_interrupted(inversion) and not edits:
        return source
    names = [f"{stem}.refined", *(f"{stem}.refined-{number}" for number in range(2, 1000))]
    places = (source.with_name(f"{name}{SUFFIX}") for name in names)
    return next((path for path in places if not path.exists()), source.with_name(f"{names[0]}{SUFFIX}"))


def is_interrupted(inversion: Inversion) -> bool:
    """Whether its refinement can be continued."""
    return inversion.refinement is not None and inversion.refinement.reason is None


def clear_edits(path: Path) -> None:
    """Remove the pictures of edits beside an inversion that ``--force`` replaces: they show the old one."""
    for each in _edits(path, others=("refined",)):
        each.unlink(missing_ok=True)


def rendered(
    inverter: Inverter,
    path: Path,
    inversion: Inversion,
    *,
    edits: Sequence[Edit] = (),
    place: Place | None = None,
    form: Format = "png",
    patience: float,
    quiet: bool,
) -> Report:
    """Write a refined inversion, with its picture as Triton's generator renders it."""
    with progress("rendering", 1 + len(edits), json=quiet) as bar:
        reconstruction = patiently(partial(inverter.render, inversion), seconds=patience)
        bar.update()
        shown, done = Shown(place, reconstruction, inversion.pose), []
        for direction, strengths in edits:
            images = patiently(
                partial(inverter.edit, inversion, shown.rendered(direction), strengths), seconds=patience
            )
            done.append(Edited(direction, strengths, shown(direction, strengths, list(images))))
            bar.update()
        return written(path, inversion, reconstruction, tile=inversion.target_pixels(), edits=done, form=form)


def written(
    path: Path,
    inversion: Inversion,
    reconstruction: Image8,
    *,
    tile: Image8,
    edits: Sequence[Edited],
    form: Format = "png",
) -> Report:
    """Write the inversion to ``path``, and its pictures beside it."""
    stem = stem_of(path.name, SUFFIX)
    reconstruction_path = path.with_name(f"{stem}.reconstruction.png")
    sheet_path = path.with_name(f"{stem}.sheet.png")
    tiles: list[tuple[str, Picture]] = [("photo", tile), ("inversion", reconstruction)]
    with Draft() as draft:
        draft.add(path, inversion.encode())
        draft.add(reconstruction_path, png(reconstruction))
        reports = add_edits(draft, tiles, path.with_name(stem), edits, form)
        draft.add(sheet_path, png(sheet(tiles)))
        if path.exists():
            clear_edits(path)
        draft.publish()
    frame, (width, height) = inversion.frame, inversion.photo_size
    data: dict[str, Any] = {
        "inversion": str(path),
        "reconstruction": str(reconstruction_path),
        "sheet": str(sheet_path),
        "edits": reports,
        "photo": {"name": inversion.photo_name, "size": [width, height], "sha256": inversion.photo_sha256},
        "frame": {
            "kind": frame.kind,
            "middle": frame.middle.tolist(),
            "side": frame.side,
            "angle": frame.angle,
            "matrix": frame.matrix.tolist(),
        },
        "crop": [frame.x, frame.y, frame.side] if frame.dy == 0 else None,
        "method": inversion.method,
        "domain": inversion.domain,
        "generator": inversion.generator,
        "cut": inversion.cut,
        "versions": inversion.versions,
    }
    lines = [
        f"Inverted {inversion.photo_name} ({width}x{height}, {frame}):",
        f"  inversion       {shown(path)}",
        f"  reconstruction  {shown(reconstruction_path)}",
        f"  sheet           {shown(sheet_path)}",
        *edit_lines(reports),
    ]
    if inversion.refinement is not None:
        data["refinement"] = json.loads(inversion.refinement.encode())
        if inversion.refinement.metrics is not None:
            data["refinement"]["result"] = asdict(verdict(inversion.refinement.metrics))
        lines += account_lines(inversion.refinement)
    return Report(data, lines)


def _in(out: str | None, stem: str, end: str) -> Path:
    return Path(out or Path("out") / stem) / f"{stem}{end}{SUFFIX}"


def _edits(path: Path, *, others: tuple[str, ...] = ()) -> list[Path]:
    """The pictures of edits beside an inversion, without those of inversions whose names begin with its own."""
    stem = stem_of(path.name, SUFFIX)
    own = {path.name, f"{stem}.reconstruction.png", f"{stem}.sheet.png"}
    foreign = tuple(f"{stem}.{other}" for other in ("face-", "faces.", *others))
    pictures = (*path.parent.glob("*.png"), *path.parent.glob("*.jpg"))
    beside = (each for each in pictures if each.name.startswith(f"{stem}.") and not each.name.startswith(foreign))
    return [each for each in beside if each.name not in own]


def _there(path: Path) -> Inversion | None:
    try:
        return Inversion.load(path)
    except InversionError:
        return None
