"""docs/commands.md: every command and every option of every program, and none that does not exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from bench.__main__ import main as bench
from client.cli import main as client
from export.__main__ import main as export
from server.cli import main as server
from sidecar.cli import main as sidecar

PROGRAMS: dict[str, Callable[[Sequence[str]], object]] = {
    "client": client, "server": server, "sidecar": sidecar, "export": export, "bench": bench,
}  # fmt: skip
PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text()
# Text by heading; a heading is the command as typed, or a group of options that commands refer to.
SECTIONS = dict(re.findall(r"^##+ (.+)\n((?:(?!^##).*\n)*)", PAGE, flags=re.MULTILINE))
OPTION = re.compile(r"--[a-z][a-z-]*")


def usage(*command: str) -> str:
    """What ``--help`` prints."""
    output = StringIO()
    with redirect_stdout(output), pytest.raises(SystemExit) as end:
        PROGRAMS[command[0]]([*command[1:], "--help"])
    assert end.value.code == 0
    return output.getvalue()


def commands(*command: str) -> Iterator[tuple[str, ...]]:
    """A command and all its subcommands."""
    yield command
    listed = re.search(r"^ +(?:COMMAND|ACTION)\n((?:     *\S.*\n)+)", usage(*command), flags=re.MULTILINE)
    for name in re.findall(r"^    (\w+)", listed[1], flags=re.MULTILINE) if listed else ():
        yield from commands(*command, name)


COMMANDS = [command for program in PROGRAMS for command in commands(program)]


def documented(text: str) -> set[str]:
    """The options in the first column of the tables of a section, and of the groups that it links to."""
    options = set(OPTION.findall(" ".join(re.findall(r"^\| (`.*?`) \|", text, flags=re.MULTILINE))))
    for anchor in re.findall(r"\]\(#([a-z]+-options)\)", text):
        options |= documented(SECTIONS[anchor.replace("-", " ").capitalize()])
    return options


def test_programs_have_commands() -> None:
    assert {("client", "batch", "edit"), ("server", "secrets"), ("export", "import"), ("bench", "paper")} <= set(
        COMMANDS
    )
    assert len(COMMANDS) > 25


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_is_documented(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    exist = {
        option
        for line in re.findall(r"^ +(-.*?)(?:  |$)", usage(*command), re.MULTILINE)
        for option in OPTION.findall(line)
    }
    assert documented(SECTIONS[" ".join(command)]) == exist - {"--help", "--version"}
    assert "--version" not in exist or "--version" in SECTIONS[command[0]]


def test_no_other_command_is_documented() -> None:
    headings = {heading for heading in SECTIONS if heading.partition(" ")[0] in PROGRAMS}
    assert headings == {" ".join(command) for command in COMMANDS}
