"""What the commands share: their reports, their connection, and the files of their pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from client.api import Inverter
from client.files.atomic import shown
from client.files.direction import Direction
from client.files.sheet import png
from client.triton.session import checked_strengths
from client.triton.transport import Timeout
from client.wire.settings import settings

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
SERVER_TROUBLE: Final = 3
INTERRUPTED: Final = 130
# A name has several parts and an ending, and 255 bytes at most.
_MAX_PART_BYTES = 100


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


def timeout(options: argparse.Namespace) -> Timeout:
    """Return the deadlines that the command line names."""
    request: float = options.timeout
    patience: float | None = getattr(options, "patience", None)
    return Timeout(
        connect=min(Timeout().connect, request),
        request=request,
        patience=Timeout().patience if patience is None else patience,
    )


def connection(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of an inverter for the servers that the command line names."""
    found = settings(options)
    # What does not ask the side-car does not mind where it is.
    side = {} if getattr(options, "fast", True) else {"refine_url": found.refine_url}
    return {"url": found.url, "domain": options.domain, "timeout": timeout(options), "access": found.access, **side}


def connect(options: argparse.Namespace) -> Inverter:
    """Return an inverter for the servers that the command line names."""
    return Inverter(**connection(options))


def progress(doing: str, total: int | None, options: argparse.Namespace) -> Any:
    """Return a progress bar, hidden without a terminal and with --json."""
    return tqdm(total=total, desc=doing, leave=False, disable=options.json or not sys.stderr.isatty())


def distinct(strengths: Sequence[float]) -> list[float]:
    """The strengths as they were typed, each once: every strength has a file of its own."""
    checked_strengths(strengths)
    return list(dict.fromkeys(strengths))


def add_edits(
    files: dict[Path, bytes],
    tiles: list[tuple[str, NDArray[np.uint8]]],
    prefix: Path,
    edited: Sequence[Edited],
) -> list[dict[str, Any]]:
    """Add the edits' files and tiles; return what the report says of them."""
    reports = []
    for done in edited:
        name = done.direction.name
        for strength, image in zip(done.strengths, done.images, strict=True):
            path = prefix.with_name(f"{prefix.name}.{part_of(name)}{strength:+.9g}.png")
            files[path] = png(image)
            tiles.append((f"{name} {strength:+.9g}", image))
            reports.append({"direction": name, "strength": strength, "image": str(path)})
    return reports


def edit_lines(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a report that name the edits' files."""
    return [f"  {report['direction']} {report['strength']:+.9g}:  {shown(report['image'])}" for report in reports]


def stem_of(name: str, suffix: str) -> str:
    """Return what the results of a file of this name are called."""
    return part_of(name.removesuffix(suffix)) or "photo"


def part_of(text: str) -> str:
    """Return a text that is safe as a part of a file's name, of at most 100 bytes."""
    safe = "".join(c if c.isalnum() or c in "-_+ ." else "_" for c in text).strip(". ")
    return safe.encode()[:_MAX_PART_BYTES].decode(errors="ignore").strip(". ")
