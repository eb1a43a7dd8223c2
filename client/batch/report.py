"""How a batch went: counts, the slowest photos, failures, files left out, and a contact sheet of the first photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from client.batch.ledger import Entry, Ledger
from client.batch.plan import Plan, request_of, thumbnail, tile_of
from client.errors import PhotoError
from client.files.photo import Photo
from client.files.sheet import jpeg
from client.text import shown

SLOWEST: Final = 5
# More failures and notes are in the ledger.
FAILURES: Final = 100
SHEET_ROWS: Final = 12
TILE: Final = 160


def account(ledger: Ledger, *, seconds: float, made: int, left_out: dict[str, int]) -> dict[str, Any]:
    """Return the report as plain values.

    Args:
        ledger: the batch's ledger.
        seconds: that this run took.
        made: photos that this run made.
        left_out: files of the folder that are not photos, counted by kind.
    """
    return {
        "photos": dict(ledger.counts()),
        "run": {"made": made, "seconds": round(seconds, 3), "per_minute": round(60 * made / seconds, 2) if made else 0},
        "slowest": [_entry(entry) for entry in ledger.entries("done", order="seconds DESC", limit=SLOWEST)],
        "left_out": left_out,
        "notes": [_entry(entry) for entry in ledger.entries("done", limit=FAILURES, with_sentence=True)],
        "failures": [_entry(entry) for entry in ledger.entries("failed", limit=FAILURES)],
    }


def lines(found: dict[str, Any], folder: Path) -> list[str]:
    """Return the report for people."""
    photos, run = found["photos"], found["run"]
    text = [
        f"{photos['done']} photos done, {photos['failed']} failed, {photos['pending']} left: {shown(folder)}",
        f"  this run        {run['made']} in {run['seconds']:.1f} s, {run['per_minute']:.1f} a minute",
    ]
    text += [f"  slowest         {each['seconds']:.1f} s  {shown(each['photo'])}" for each in found["slowest"][:1]]
    text += [f"  failed          {shown(each['photo'])}: {each['sentence']}" for each in found["failures"][:10]]
    if len(found["failures"]) > 10:
        text.append("  ...             more in report.json, all in the ledger")
    text += [f"  note            {shown(each['photo'])}: {each['sentence']}" for each in found["notes"][:10]]
    if len(found["notes"]) > 10:
        text.append("  ...             more in report.json, all in the ledger")
    if found["left_out"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found["left_out"].items())
        text.append(f"  left out        {kinds}")
    return text


def contact_sheet(ledger: Ledger, plan: Plan, folder: Path) -> bytes | None:
    """Return a JPEG file, a row for each of the first photos with its pictures; None if nothing is done."""
    rows = [_row(entry, plan, folder) for entry in ledger.entries("done", limit=SHEET_ROWS)]
    return jpeg(np.concatenate(rows), quality=88) if rows else None


def _row(entry: Entry, plan: Plan, folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    tiles = []
    try:
        photo = Photo.open(entry.item.path)
        tiles.append(tile_of(photo.image, TILE))
    except (PhotoError, OSError, ValueError):
        # It was readable when it was inverted.
        tiles.append(np.full((TILE, TILE, 3), 128, np.uint8))
    for path in plan.shown(folder, entry.item):
        try:
            tiles.append(thumbnail(path, TILE))
        except (OSError, ValueError):
            tiles.append(np.full((TILE, TILE, 3), 128, np.uint8))
    return np.concatenate(tiles, axis=1)


def _entry(entry: Entry) -> dict[str, Any]:
    item = entry.item
    row: dict[str, Any] = {
        "photo": item.path,
        "name": item.name,
        "request": request_of(item),
        "seconds": entry.seconds,
    }
    return row if entry.sentence is None else {**row, "sentence": entry.sentence, "attempts": entry.attempts}
