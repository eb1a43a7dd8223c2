"""A minute of `make chaos`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from server_tests.chaos import __main__ as chaos
from server_tests.chaos.__main__ import Chaos


@pytest.mark.slow
def test_batches_survive_harm(tmp_path: Path) -> None:
    found = Chaos(tmp_path, seconds=30, seed=3, photos=6, quiet=1).run()
    assert not found["troubles"], json.dumps(found["troubles"], indent=1, default=str)
    assert (found["lost"], found["doubled"], found["different"]) == (0, 0, 0)
    assert sum(found["harm"].values()) > 2
    assert found["malformed requests"] > 100
    # The last two are those of a server that is killed meanwhile.
    expected = {"INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED"}
    assert set(found["answers to them"]) <= expected


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("sys.exit('error: no such library')", "the servers ended with status 1:\nerror: no such library"),
        ("print('loading', file=sys.stderr, flush=True); time.sleep(600)", "a batch did not end in time: no server"),
    ],
)
def test_what_never_works_is_said(
    launcher: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chaos, "TINY", [sys.executable, "-c", f"import sys, time; {launcher}"])
    monkeypatch.setattr(chaos, "FIRST_S", 0.0)
    monkeypatch.setattr(sys, "argv", ["chaos"])
    if "loading" in launcher:
        monkeypatch.setattr(Chaos, "attempt", lambda _self, *, calm: time.sleep(2) or (3, f"no server, {calm=}"))
    assert chaos.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and words in said.err
    assert said.err.rstrip().endswith(launcher.split("'")[1])
