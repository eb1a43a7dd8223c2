"""The commands that need no refinement: each asks the API, writes its files together, and returns a report."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from client.commands.report import (
    OK,
    SERVER_TROUBLE,
    Edited,
    Report,
    add_edits,
    connect,
    distinct,
    edit_lines,
    part_of,
    progress,
    stem_of,
)
from client.files import direction as directions
from client.files.atomic import shown, write_all
from client.files.inversion import SUFFIX, Inversion
from client.files.sheet import png, sheet


def edit(options: argparse.Namespace) -> Report:
    """Edit an inversion along one direction."""
    strengths = distinct(options.strength)
    direction = directions.load(options.domain, options.direction)
    inversion = Inversion.load(options.inversion)
    stem = stem_of(Path(options.inversion).name, SUFFIX)
    folder = Path(options.out or Path("out") / stem)
    with connect(options) as inverter, progress("editing", 2, options) as bar:
        plain = inverter.render(inversion)
        bar.update()
        images = inverter.edit(inversion, direction, strengths)
        bar.update()
    files: dict[Path, bytes] = {}
    tiles = [("inversion", plain)]
    reports = add_edits(files, tiles, folder / stem, [Edited(direction, strengths, images)])
    sheet_path = folder / f"{stem}.{part_of(direction.name)}.sheet.png"
    files[sheet_path] = png(sheet(tiles))
    write_all(files)
    data = {"sheet": str(sheet_path), "edits": reports, "generator": inversion.generator}
    lines = [f"Edited {inversion.photo_name}:", f"  sheet           {shown(sheet_path)}", *edit_lines(reports)]
    return Report(data, lines)


def generate(options: argparse.Namespace) -> Report:
    """Draw a sample of the generator."""
    with connect(options) as inverter, progress("generating", 1, options) as bar:
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
    with connect(options) as inverter:
        found = inverter.status()
    words = {(False, False): "missing", (True, False): "not ready", (True, True): "ready"}
    server = f"{shown(found.server.name)} {shown(found.server.version)}"
    lines = [
        f"Server {server} at {found.url}: {'ready' if found.ready else 'not ready'}",
        f"Generator {found.generator or 'unknown'}, cut at {found.cut or 'unknown'}",
    ]
    width = max(len(model.name) for model in found.models)
    for model in found.models:
        versions = f"version {', '.join(map(shown, model.versions))}" if model.versions else ""
        lines.append(f"  {model.name:<{width}} {words[model.served, model.ready]:<10} {versions}".rstrip())
    return Report({**asdict(found), "usable": found.usable}, lines, OK if found.usable else SERVER_TROUBLE)
