"""``client status``: what the server serves, and whether it is ready."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from client.api import Inverter
from client.commands.groups import OutputOptions, ServerOptions, connection
from client.commands.options import group
from client.commands.report import Report
from client.commands.text import ACCESS
from client.exit_codes import OK, SERVER_TROUBLE
from client.text import shown

MORE = ""
_WORDS = {(False, False): "missing", (True, False): "not ready", (True, True): "ready"}


@dataclass(frozen=True, kw_only=True)
class StatusFlags:
    """The options of ``client status``."""

    output: OutputOptions = group(OutputOptions)
    server: ServerOptions = group(ServerOptions, "servers", ACCESS)


OPTIONS: Final = StatusFlags


def run(options: StatusFlags) -> Report:
    """Show what the server serves."""
    with Inverter(**connection(options.output, options.server)) as inverter:
        found = inverter.status()
    server = f"{shown(found.server.name)} {shown(found.server.version)}"
    lines = [
        f"Server {server} at {found.url}: {'ready' if found.ready else 'not ready'}",
        f"Generator {found.generator or 'unknown'}, cut at {found.cut or 'unknown'}",
    ]
    width = max(len(model.name) for model in found.models)
    for model in found.models:
        versions = f"version {', '.join(map(shown, model.versions))}" if model.versions else ""
        lines.append(f"  {model.name:<{width}} {_WORDS[model.served, model.ready]:<10} {versions}".rstrip())
    return Report({**asdict(found), "usable": found.usable}, lines, OK if found.usable else SERVER_TROUBLE)
