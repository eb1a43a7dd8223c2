"""The documentation: command lines parse, targets and variables exist, links resolve, Python blocks compile."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.__main__ import main as bench_main
from client.cli import parser
from export.__main__ import COMMANDS, MODULES
from export.__main__ import main as export_main
from server.cli import _parser as server_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, flags=re.MULTILINE))


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


LINES = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]


def test_there_is_something_to_check() -> None:
    assert {"make invert", "make test"} <= set(LINES)
    assert any(line.startswith("client ") for line in LINES)
    assert any(line.startswith("python -m export train") for line in LINES)


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_parses(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(line)
    if line == ". .venv/bin/activate":
        return
    if program == "make":
        assert arguments[0] in TARGETS
    elif program == "client":
        assert parser().parse_args(arguments).command == arguments[0]
    elif arguments[1] == "server":
        assert server_parser().parse_args(arguments[2:]).command == arguments[2]
    elif arguments[1] == "bench":
        assert program == "python"
        monkeypatch.setattr(import_module(f"bench.{arguments[2]}"), "run", lambda _: None)
        assert bench_main(arguments[2:]) == 0
    else:
        assert [program, *arguments[:2]] == ["python", "-m", "export"]
        ran: list[SimpleNamespace] = []
        monkeypatch.setattr(import_module(f"export.{MODULES.get(arguments[2], arguments[2])}"), "run", ran.append)
        assert export_main(arguments[2:]) == 0
        assert len(ran) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_resolves(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def test_the_readme_names_every_export_command() -> None:
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if "`python -m export`" in line)
    assert set(COMMANDS) <= set(re.findall(r"`(\w+)`", row))


def test_every_target_is_in_the_help() -> None:
    assert {"help", "invert", "test", "serve", "lint", "bench"} <= TARGETS


def test_every_variable_of_make_is_documented() -> None:
    variables = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, flags=re.MULTILINE))
    page = (ROOT / "docs/commands.md").read_text()
    section = page.partition("## make\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([A-Z]+)(?:=\w+)?` ", section, flags=re.MULTILINE)) == variables | {"BASE"}


def test_every_page_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in readme] == []
