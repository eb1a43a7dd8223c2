"""Where compiled code is kept: PyTorch runs what it finds there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from assets.compiled import VARIABLE, code_folder, compile_function


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    return tmp_path / "build"


def test_code_is_kept_in_the_build_folder_and_is_private(build: Path) -> None:
    (build / "compiled").mkdir(parents=True)
    (build / "compiled").chmod(0o777)
    assert compile_function(abs)(-1) == 1
    assert os.environ[VARIABLE] == str(build / "compiled")
    assert stat.S_IMODE((build / "compiled").stat().st_mode) == 0o700


def test_a_folder_that_the_user_names_is_kept(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/elsewhere")
    compile_function(abs)
    assert os.environ[VARIABLE] == "/elsewhere"
    assert not build.exists()


def test_where_the_build_folder_cannot_hold_it_a_private_one_does(build: Path) -> None:
    build.parent.joinpath("build").write_text("a file")
    folder = code_folder()
    assert folder.is_dir()
    assert build not in folder.parents
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_else_compiles() -> None:
    """Whoever calls ``torch.compile`` keeps code in /tmp."""
    root = Path(__file__).parents[2]
    rooms = ("assets", "bench", "client", "export", "judges", "networks", "protocol", "server", "sidecar")
    found = [p for room in rooms for p in (root / room).rglob("*.py") if "torch.compile(" in p.read_text()]
    assert found == [root / "assets" / "compiled.py"]
