"""``client directions``: the directions that come with the package."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from client.commands.groups import OutputOptions
from client.commands.options import group
from client.commands.report import Report
from client.files import direction as directions
from client.text import shown

MORE = ""


@dataclass(frozen=True, kw_only=True)
class DirectionsFlags:
    """The options of ``client directions``."""

    output: OutputOptions = group(OutputOptions)


OPTIONS: Final = DirectionsFlags


def run(options: DirectionsFlags) -> Report:
    """List the directions that come with the package."""
    domain = options.output.domain
    found = [directions.load(domain, name) for name in directions.names(domain)]
    listed = [{key: value for key, value in asdict(each).items() if key != "vector"} for each in found]
    lines = [f"Directions of {shown(domain)}:" if found else f"No directions are installed for {shown(domain)}."]
    for direction in found:
        limits = "{:g} to {:g}".format(*direction.suggested_range) if direction.suggested_range else "any"
        lines.append(f"  {direction.name:<12} {direction.description or 'no description'} (strengths {limits})")
        if direction.unit:
            lines.append(f"  {'':<12} strength 1 is {direction.unit}")
    return Report({"domain": domain, "directions": listed}, lines)
