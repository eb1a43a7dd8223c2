"""The commands: each asks the API, writes its files together, and returns a report."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from client import directions
from client.directions import Direction
from client.errors import ClientError, ParameterError
from client.files import shown, write_all
from client.inversion import SUFFIX, Inversion
from client.inverter import Inverter
from client.photo import Crop, Photo
from client.session import checked_strengths
from client.sheet import TILE, png, sheet
from client.transport import Timeout

OK: Final = 0
BAD_INPUT: Final = 2
SERVER_TROUBLE: Final = 3
INTERRUPTED: Final = 130


@dataclass(frozen=True)
class Report:
    """What a command did: for machines, for people, and the exit code."""

    data: dict[str, Any]
    lines: list[str]
    code: int = OK


@dataclass(frozen=True, eq=False)
class Edited:
    """The pictures along one direction: uint8 RGB [n, H, W, 3], one for each strength."""

    direction: Direction
    strengths: list[float]
    images: NDArray[np.uint8]


class NoRefinement(ClientError):
    """The command needs a service that this version does not have."""


def invert(options: argparse.Namespace) -> Report:
    """Invert a photo, and edit it."""
    if not options.fast:
        raise NoRefinement(
            "Refinement needs a service that this version does not have; use --fast for the encoder alone."
        )
    crop = Crop.parse(options.crop) if options.crop else None
    edits = [_parsed_edit(text, options.domain) for text in options.edit]
    photo = Photo.open(options.photo)
    square = photo.square(crop)
    stem = _stem(photo.name, Path(photo.name).suffix)
    folder = Path(options.out or Path("out") / stem)
    edited = []
    with _inverter(options) as inverter, _progress("inverting", 1 + len(edits), options) as bar:
        result = inverter.invert(photo, square)
        bar.update()
        for direction, strengths in edits:
            edited.append(Edited(direction, strengths, inverter.edit(result.inversion, direction, strengths)))
            bar.update()
    inversion_path = folder / f"{stem}{SUFFIX}"
    reconstruction_path = folder / f"{stem}.reconstruction.png"
    sheet_path = folder / f"{stem}.sheet.png"
    files = {inversion_path: result.inversion.encode(), reconstruction_path: png(result.reconstruction)}
    tiles = [("photo", photo.pixels(square, TILE)), ("inversion", result.reconstruction)]
    reports = _add_edits(files, tiles, folder / stem, edited)
    files[sheet_path] = png(sheet(tiles))
    write_all(files)
    inversion = result.inversion
    data = {
        "inversion": str(inversion_path),
        "reconstruction": str(reconstruction_path),
        "sheet": str(sheet_path),
        "edits": reports,
        "photo": {"name": photo.name, "size": list(photo.size), "sha256": photo.sha256},
        "crop": [square.x, square.y, square.size],
        "method": inversion.method,
        "domain": inversion.domain,
        "generator": inversion.generator,
        "cut": inversion.cut,
        "versions": inversion.versions,
    }
    lines = [
        f"Inverted {photo.name} ({photo.size[0]}x{photo.size[1]}, square {square}):",
        f"  inversion       {shown(inversion_path)}",
        f"  reconstruction  {shown(reconstruction_path)}",
        f"  sheet           {shown(sheet_path)}",
        *_edit_lines(reports),
    ]
    return Report(data, lines)


def edit(options: argparse.Namespace) -> Report:
    """Edit an inversion along one direction."""
    strengths = _distinct(options.strength)
    direction = directions.load(options.domain, options.direction)
    inversion = Inversion.load(options.inversion)
    stem = _stem(Path(options.inversion).name, SUFFIX)
    folder = Path(options.out or Path("out") / stem)
    with _inverter(options) as inverter, _progress("editing", 2, options) as bar:
        plain = inverter.render(inversion)
        bar.update()
        images = inverter.edit(inversion, direction, strengths)
        bar.update()
    files: dict[Path, bytes] = {}
    tiles = [("inversion", plain)]
    reports = _add_edits(files, tiles, folder / stem, [Edited(direction, strengths, images)])
    sheet_path = folder / f"{stem}.{_part(direction.name)}.sheet.png"
    files[sheet_path] = png(sheet(tiles))
    write_all(files)
    data = {"sheet": str(sheet_path), "edits": reports, "generator": inversion.generator}
    lines = [f"Edited {inversion.photo_name}:", f"  sheet           {shown(sheet_path)}", *_edit_lines(reports)]
    return Report(data, lines)


def generate(options: argparse.Namespace) -> Report:
    """Draw a sample of the generator."""
    with _inverter(options) as inverter, _progress("generating", 1, options) as bar:
        image = inverter.generate(options.seed, options.psi)
        bar.update()
    path = Path(options.out or Path("out") / "generated") / f"seed-{options.seed}.png"
    write_all({path: png(image)})
    data = {"image": str(path), "seed": options.seed, "psi": options.psi, "domain": options.domain}
    return Report(data, [f"Generated seed {options.seed}: {shown(path)}"])


def list_directions(options: argparse.Namespace) -> Report:
    """List the directions that come with the package."""
    found = [directions.load(options.domain, name) for name in directions.names(options.domain)]
    data = {
        "domain": options.domain,
        "directions": [
            {key: value for key, value in asdict(direction).items() if key != "vector"} for direction in found
        ],
    }
    lines = [
        f"Directions of {shown(options.domain)}:"
        if found
        else f"No directions are installed for {shown(options.domain)}."
    ]
    for direction in found:
        limits = "{:g} to {:g}".format(*direction.suggested_range) if direction.suggested_range else "any"
        lines.append(f"  {direction.name:<12} {direction.description or 'no description'} (strengths {limits})")
        if direction.unit:
            lines.append(f"  {'':<12} strength 1 is {direction.unit}")
    return Report(data, lines)


def status(options: argparse.Namespace) -> Report:
    """Say what the server serves."""
    with _inverter(options) as inverter:
        found = inverter.status()
    words = {(False, False): "missing", (True, False): "not ready", (True, True): "ready"}
    server = f"{shown(found.server.name)} {shown(found.server.version)}"
    lines = [
        f"Server {server} at {found.url}: {'ready' if found.ready else 'not ready'}",
        f"Generator {found.generator or 'unknown'}, cut at {found.cut or 'unknown'}",
    ]
    for model in found.models:
        versions = f"version {', '.join(map(shown, model.versions))}" if model.versions else ""
        lines.append(f"  {model.name:<16} {words[model.served, model.ready]:<10} {versions}".rstrip())
    return Report({**asdict(found), "usable": found.usable}, lines, OK if found.usable else SERVER_TROUBLE)


def _inverter(options: argparse.Namespace) -> Inverter:
    request: float = options.timeout
    return Inverter(options.url, domain=options.domain, timeout=Timeout(connect=min(5.0, request), request=request))


def _progress(doing: str, total: int, options: argparse.Namespace) -> Any:
    return tqdm(total=total, desc=doing, leave=False, disable=options.json or not sys.stderr.isatty())


def _parsed_edit(text: str, domain: str) -> tuple[Direction, list[float]]:
    name, separator, numbers = text.rpartition("=")
    try:
        strengths = [float(number) for number in numbers.split(",")]
    except ValueError:
        strengths = []
    if not (separator and name and strengths):
        raise ParameterError(f"An edit is name=strength,strength, for example age=-3,3, not '{shown(text)}'.")
    return directions.load(domain, name), _distinct(strengths)


def _distinct(strengths: list[float]) -> list[float]:
    """The strengths as they were typed, each once: every strength has a file of its own."""
    checked_strengths(strengths)
    return list(dict.fromkeys(strengths))


def _add_edits(
    files: dict[Path, bytes],
    tiles: list[tuple[str, NDArray[np.uint8]]],
    prefix: Path,
    edited: list[Edited],
) -> list[dict[str, Any]]:
    """Add the edits' files and tiles; return what the report says of them."""
    reports = []
    for done in edited:
        name = done.direction.name
        for strength, image in zip(done.strengths, done.images, strict=True):
            path = prefix.with_name(f"{prefix.name}.{_part(name)}{strength:+.9g}.png")
            files[path] = png(image)
            tiles.append((f"{name} {strength:+.9g}", image))
            reports.append({"direction": name, "strength": strength, "image": str(path)})
    return reports


def _edit_lines(reports: list[dict[str, Any]]) -> list[str]:
    return [f"  {report['direction']} {report['strength']:+.9g}:  {shown(report['image'])}" for report in reports]


def _stem(name: str, suffix: str) -> str:
    return _part(name.removesuffix(suffix)) or "photo"


def _part(text: str) -> str:
    """Return a text that is safe as a part of a file's name."""
    return "".join(c if c.isalnum() or c in "-_+ ." else "_" for c in text).strip(". ")[:100]
