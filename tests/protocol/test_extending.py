"""docs/extending.md: its places exist and are few, and its loss term works in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from assets.paths import build_dir

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))

RUN = """
import numpy as np
from client.files.record import RefineOptions
from protocol import codec
from protocol.options import Options
from protocol.terms import TERMS, Terms
from sidecar.optimise.recipe import chosen
from tests.sidecar.samples import finish, small_engine, small_start

assert TERMS[-1] == "spread"
assert chosen(Options()).weights["spread"] == 1
sent = RefineOptions(weights={"spread": 2.0})
assert codec.from_options(codec.to_options(sent)).weights == sent.weights
engine = small_engine()
start = small_start(engine, 1)
found = {}
for weight in (0.0, 1000.0):
    job = engine.open(start, Options(steps=3, weights={"spread": weight}))
    finish(engine, [job])
    state = codec.from_checkpoint(codec.to_checkpoint(job.state()))
    assert state.terms == job.state().terms
    found[weight] = engine.terms(start, state).spread
    spread = np.square(state.w_m_plus - state.w_m_plus.mean(axis=0)).mean()
    assert np.isclose(spread, found[weight], rtol=1e-3)
assert 0 < found[1000.0] < found[0.0], found
"""


@pytest.mark.parametrize("title", SECTIONS)
def test_each_takes_at_most_four_places(title: str) -> None:
    places = re.findall(r"^\d\. `([^`]+)`:", SECTIONS[title], flags=re.MULTILINE)
    assert 1 <= len(places) <= 4
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_there_are_five() -> None:
    assert list(SECTIONS) == [
        "A loss term",
        "A refine option",
        "A served model",
        "A generator family",
        "A kind of edit",
    ]


def test_the_loss_term_works(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    left_out = shutil.ignore_patterns(
        ".*", "build", "weights", "model_repository", "docs", "bench", "__pycache__", "*.egg-info"
    )
    shutil.copytree(ROOT, copy, ignore=left_out)
    (copy / "networks" / "weights").symlink_to(ROOT / "networks" / "weights")
    changes = re.findall(r"^```diff\n(.*?)^```", SECTIONS["A loss term"], flags=re.MULTILINE | re.DOTALL)
    assert len(changes) == 4
    for change in changes:
        # Line numbers drift: the context finds the place.
        subprocess.run(["git", "apply", "--recount", "-"], cwd=copy, input=change, text=True, check=True)
    environment = {**os.environ, "PYTHONPATH": str(copy), "UNALIGNED_BUILD": str(build_dir())}
    for arguments in (["-m", "protocol"], ["-c", RUN]):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    help_text = subprocess.run(
        [sys.executable, "-m", "client", "refine", "--help"],
        cwd=copy, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "spread" in help_text
