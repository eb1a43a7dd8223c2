"""A minute of `make chaos`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server_tests.chaos.__main__ import Chaos


@pytest.mark.slow
def test_batches_survive_harm(tmp_path: Path) -> None:
    found = Chaos(tmp_path, seconds=30, seed=3, photos=6, quiet=1).run()
    assert not found["troubles"], json.dumps(found["troubles"], indent=1, default=str)
    assert (found["lost"], found["doubled"], found["different"]) == (0, 0, 0)
    assert sum(found["harm"].values()) > 2
    assert found["malformed requests"] > 100
    assert set(found["answers to them"]) <= {"INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
