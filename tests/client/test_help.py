"""The help of every command, its usage, and the README."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import cli
from client.limits import MAX_MEGAPIXELS

README = Path(__file__).parents[2] / "README.md"


def subcommands() -> dict[str, argparse.ArgumentParser]:
    return dict(leaves(cli.parser()))


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command by its words."""
    actions = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not actions:
        yield name, parser
    for action in actions:
        assert {choice.dest for choice in action._choices_actions if choice.help} == set(action.choices)
        for word, command in action.choices.items():
            yield from leaves(command, f"{name} {word}".strip())


def test_every_command_and_option_has_help():
    assert set(subcommands()) == {"invert", "faces", "batch edit", "refine", "edit", "generate", "directions", "status"}
    for name, command in subcommands().items():
        assert command.description, name
        for action in command._actions:
            assert action.help, (name, action.dest)
        options = {option for action in command._actions for option in action.option_strings}
        assert {"--json", "--domain"} <= options
        assert "exit codes" in command.format_help()


@pytest.mark.parametrize(
    "name", ["", "invert", "faces", "batch", "batch edit", "refine", "edit", "generate", "directions", "status"]
)
def test_help_is_printed(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*name.split(), "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    if name in ("", "invert"):
        assert f"{MAX_MEGAPIXELS} megapixels" in text.replace("\n", " ")
        assert "JPEG" in text


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["invert"], ["refine"], ["edit", "x"], ["generate"], ["generate", "--seed", "x"]]
)
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.skipif(not README.is_file(), reason="README.md is not there")
def test_the_readme_has_a_row_for_every_command():
    rows = [line for line in README.read_text().splitlines() if line.startswith("|")]
    for name in subcommands():
        assert any(re.search(rf"`client {name}\b", row) for row in rows), f"no row for client {name}"
