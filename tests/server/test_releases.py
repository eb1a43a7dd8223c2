"""No file deploys a Triton older than the least allowed release."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAST = (ROOT / "docker/triton/least-release").read_text().strip()
IMAGE = re.compile(r"tritonserver:(\d\d)\.(\d\d)\b")


def too_old(text: str) -> list[str]:
    """Images of Triton in a text that are older than allowed."""
    least = tuple(map(int, LEAST.split(".")))
    return [found[0] for found in IMAGE.finditer(text) if tuple(map(int, found.groups())) < least]


def pinning() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "docker", "docs", "Makefile"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [ROOT / name for name in listed.stdout.split() if not name.endswith((".png", ".jpg"))]
    return [path for path in files if IMAGE.search(path.read_text())]


def test_the_least_release_has_the_published_fixes() -> None:
    assert tuple(map(int, LEAST.split("."))) >= (26, 4)  # CVE-2026-24206 to 24209


def test_older_releases_are_found() -> None:
    assert too_old("FROM nvcr.io/nvidia/tritonserver:25.10-py3") == ["tritonserver:25.10"]
    assert too_old(f"FROM nvcr.io/nvidia/tritonserver:{LEAST}-py3") == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_no_file_pins_an_older_one() -> None:
    files = pinning()
    assert ROOT / "docker/triton/Dockerfile" in files
    assert {path.name: too_old(path.read_text()) for path in files} == {path.name: [] for path in files}
