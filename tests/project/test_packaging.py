"""Packaging: bounded versions, pinned CI, consistent extras."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [r for group in (PROJECT["dependencies"], *EXTRAS.values()) for r in group if "unaligned[" not in r]


def name(requirement: str) -> str:
    return re.split(r"[\[<>=]", requirement)[0].lower()


@pytest.mark.parametrize("requirement", sorted(set(REQUIREMENTS)))
def test_versions_are_bounded_and_pinned(requirement: str) -> None:
    assert ">=" in requirement
    assert ",<" in requirement
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert name(requirement) in pins | {"onnxruntime-gpu"}


def test_gpu_is_export_with_the_other_runtime() -> None:
    assert [r.replace("onnxruntime-gpu", "onnxruntime") for r in EXTRAS["gpu"]] == EXTRAS["export"]


@pytest.mark.parametrize("extra", ["client", "export", "sidecar", "bench", "dev", "gpu"])
def test_the_extra_exists(extra: str) -> None:
    assert EXTRAS[extra]


def test_the_client_extra_has_no_torch() -> None:
    assert not {"torch", "onnx", "onnxruntime"} & {name(r) for r in EXTRAS["client"]}
