"""``client generate``: a sample of the generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.api import DEFAULT_DOMAIN, Inverter
from client.atomic import write_all
from client.commands.groups import OutputOptions, ServerOptions, connection
from client.commands.options import group, option, required, switch
from client.commands.report import Report, progress
from client.commands.text import ACCESS
from client.files.sheet import png
from client.text import shown

MORE = ""
PSI: Final = 0.7


@dataclass(frozen=True, kw_only=True)
class GenerateFlags:
    """The options of ``client generate``."""

    seed: int = required("--seed", "a whole number, 0 or more", type=int, metavar="N")
    psi: float = option(
        "--psi",
        f"truncation from -2 to 2: 1 for none, 0 for the mean face (default: {PSI})",
        default=PSI,
        type=float,
        metavar="PSI",
    )
    out: str | None = option(
        "--out", "folder for the results, created if missing (default: out/generated/)", metavar="DIR"
    )
    force: bool = switch("--force", "replace a picture that differs")
    output: OutputOptions = group(OutputOptions)
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = GenerateFlags


def run(options: GenerateFlags) -> Report:
    """Draw a sample of the generator."""
    domain = options.output.domain
    with (
        Inverter(**connection(options.output, options.server)) as inverter,
        progress("generating", 1, json=options.output.json) as bar,
    ):
        image = inverter.generate(options.seed, options.psi)
        bar.update()
    name = f"seed-{options.seed}"
    name += f".psi{options.psi:+.9g}" if options.psi != PSI else ""
    name += f".{domain}" if domain != DEFAULT_DOMAIN else ""
    path = Path(options.out or Path("out") / "generated") / f"{name}.png"
    write_all({path: png(image)}, force=options.force)
    data = {"image": str(path), "seed": options.seed, "psi": options.psi, "domain": domain}
    return Report(data, [f"Generated seed {options.seed}: {shown(path)}"])
