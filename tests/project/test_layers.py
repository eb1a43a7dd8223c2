"""Imports between folders: those in docs/architecture.md, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(\w+)/` \|.*\| ([^|]+) \|$", re.MULTILINE)
DOCUMENTED = {
    folder: set(re.findall(r"`(\w+)`", imports))
    for folder, imports in ROW.findall((ROOT / "docs" / "architecture.md").read_text())
    if any((ROOT / folder).rglob("*.py")) and "all" not in imports
}


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Pairs of a module and a module or name that it imports, both dotted."""
    for path in (ROOT / folder).rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from ((module, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((module, alias.name) for alias in node.names)


def test_folders_import_what_the_architecture_says() -> None:
    assert {"client", "export", "networks", "protocol", "server", "sidecar"} <= set(DOCUMENTED)
    for folder, documented in DOCUMENTED.items():
        found = {name.split(".")[0] for _, name in imports(folder)} & (set(DOCUMENTED) | {"bench"})
        assert found - {folder} == documented, folder


def test_no_folder_imports_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for folder in DOCUMENTED:
        for module, name in imports(folder):
            one, other = (".".join(dotted.split(".")[:2]) for dotted in (module, name))
            if one != other and other.split(".")[0] in DOCUMENTED:
                rooms.setdefault(one, set()).add(other)
    TopologicalSorter(rooms).prepare()  # raises CycleError


def test_client_and_protocol_do_not_import_torch() -> None:
    for folder in ("client", "protocol", "photos"):
        assert not [module for module, name in imports(folder) if name.split(".")[0] in {"torch", "torchvision"}]
