"""The extra ``sidecar`` alone is enough to run the side-car, and its code needs no Triton launcher."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("assets", "judges", "networks", "photos", "protocol", "sidecar")
# protocol/__main__.py regenerates the stubs; traces are an extra; _typeshed is for type checkers alone.
ELSEWHERE = {"grpc_tools", "opentelemetry", "_typeshed"}


def imported(folder: str) -> set[str]:
    """Top-level names of all that a folder's modules import, wherever they do."""
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names)


def test_every_import_is_of_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["sidecar"]]
    installed = {re.split(r"[\[<>=]", requirement)[0].lower() for requirement in required}
    # google.rpc comes with grpcio-status.
    installed.add("googleapis-common-protos")
    names = set.union(*(imported(folder) for folder in FOLDERS)) - set(FOLDERS) - ELSEWHERE
    owners = packages_distributions()
    missing = {
        name for name in names if not installed & {owner.lower().replace("_", "-") for owner in owners.get(name, [])}
    }
    assert missing == set()


def test_the_extras_for_both_runtimes_are_alike() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [r.replace("onnxruntime-gpu", "onnxruntime") for r in extras["sidecar-gpu"]] == extras["sidecar"]
