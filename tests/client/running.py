"""Running commands of the client, and looking at what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from client import cli

FILE = "out/me/me.inversion.safetensors"


REFINED = "out/me/me.refined.inversion.safetensors"


RESULTS = ["out", "out/me", "out/me/me.inversion.safetensors", "out/me/me.reconstruction.png", "out/me/me.sheet.png"]


def files(place: Path) -> list[str]:
    given = {"me.png", "installed"}
    return sorted(
        str(path.relative_to(place)) for path in place.rglob("*") if path.relative_to(place).parts[0] not in given
    )


def failed(capsys, *arguments: str, code: int = 2) -> str:
    """Run a command that fails with an exit code: its one sentence."""
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert not captured.err.endswith(".\n")
    return captured.err


def reported(capsys, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What a command reports with ``--json``."""
    assert cli.main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second file that is written not fit on the disk."""
    written = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("client.atomic.os.fsync", full)


def abort(step: int, code: grpc.StatusCode, details: str):
    return lambda now, context: now < step or context.abort(code, details)


DIVERGED = abort(27, grpc.StatusCode.FAILED_PRECONDITION, "The loss became NaN.")


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def save(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 90, 3), np.uint8)).save(path)


def results(folder: Path) -> dict[str, bytes]:
    """Every result of a batch, without the ledger and the report, which contain times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("ledger", "report"))
    }
