"""The section of a page that a benchmark writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import quality, throughput
from bench.page import PageError, check, marks, replaced, write
from client.errors import OutputError

DOCS = Path(__file__).resolve().parents[2] / "docs"
START, END = marks("part")


def test_only_what_is_between_the_marks_is_replaced() -> None:
    text = f"# Title\n{START}\nold\n\nolder\n{END}\nend\n"
    once = replaced(text, "\nnew\n", "part")
    assert once == f"# Title\n{START}\nnew\n{END}\nend\n"
    assert replaced(once, "new", "part") == once


@pytest.mark.parametrize(
    "text", ["", START, END, f"{END}{START}", f"{START}{END}{START}{END}", f"{START}{START}{END}", f"{START}{END}{END}"]
)
def test_marks_are_needed_once_each(text: str) -> None:
    with pytest.raises(PageError, match="once each"):
        replaced(text, "new", "part")


def test_a_page_is_checked_before_it_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(START)
    with pytest.raises(PageError, match="once each"):
        check(page, "part")
    check(None, "part")
    write(None, "new", "part")
    assert page.read_text() == START


@pytest.mark.parametrize(("page", "name"), [("performance.md", throughput.MARK), ("quality.md", quality.MARK)])
def test_the_pages_have_the_marks(page: str, name: str) -> None:
    assert "| 0.9 |" in replaced((DOCS / page).read_text(), "| 0.9 |", name)


def test_write_replaces_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{START}old{END}")
    write(page, "new", "part")
    assert page.read_text() == f"{START}\nnew\n{END}"

    def fail(*_: object) -> None:
        raise OSError("no rename")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="no rename"):
        write(page, "newer", "part")
    assert page.read_text() == f"{START}\nnew\n{END}"
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
