"""The section of a page that a benchmark writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import quality, throughput
from bench.page import PageError, marks, replaced, write

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
    with pytest.raises(OSError, match="no rename"):
        write(page, "newer", "part")
    assert page.read_text() == f"{START}\nnew\n{END}"
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
