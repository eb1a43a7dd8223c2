"""Reads the log of a server."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_KEPT_LOGS = 50
_FAILED = re.compile(r"""failed to load '([^']+)' version \d+: (.*?)(?:\\n|"$|$)""", re.MULTILINE)
_REASON_PREFIX = re.compile(r"^(?:[A-Z][A-Za-z ]*: )*(?:\w+(?:Error|Exception): )?")
_LOST = re.compile(
    r"^(?:guard|probe): (?:the process of (\w+)_\d+_\d+|(a process of )?the server) (died|hangs)", re.MULTILINE
)
_PORT_TAKEN = re.compile(r"already in use|failed to start (?:GRPC|HTTP|Metrics) ", re.IGNORECASE)


def tail(path: Path, lines: int = 25) -> str:
    """Return the last ``lines`` lines of a log without its tables; '' if there is no log."""
    kept = [line for line in _read(path).splitlines() if line.strip() and line[0] not in "+|"]
    return "\n".join(kept[-lines:])


def failed_models(path: Path) -> dict[str, str]:
    """Return the models that could not be loaded according to a log, each with the reason in one line."""
    return {name: _REASON_PREFIX.sub("", reason).rstrip(".") for name, reason in _FAILED.findall(_read(path))}


def lost_part(path: Path) -> str:
    """What died or hangs, according to the guard's or the probe's line in a log; '' if nothing did."""
    found = _LOST.search(_read(path))
    if not found:
        return ""
    what = f"the process of model `{found[1]}`" if found[1] else "one of its processes" if found[2] else "it"
    return f"{what} {'died' if found[3] == 'died' else 'did not react'}"


def says_port_taken(path: Path) -> bool:
    """Whether a log says that a port was in use."""
    return bool(_PORT_TAKEN.search(_read(path)))


def prune(folder: Path) -> None:
    """Delete the oldest logs of ``folder`` but for the last 50."""
    ages = []
    for log in folder.glob("*.log"):
        # Another launcher may prune at the same time.
        with suppress(FileNotFoundError):
            ages.append((log.stat().st_mtime, log))
    for _, log in sorted(ages)[:-_KEPT_LOGS]:
        log.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
