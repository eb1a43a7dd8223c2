"""The ledger of a batch, and the names and sources of its photos."""

from __future__ import annotations

import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.batch.ledger import Ledger, Outcome
from client.batch.manifest import Item, Shard, items, name_of
from client.errors import OutputError, ParameterError


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as first:
        first.begin({}, [Item("a", "a")])
        with pytest.raises(OutputError, match="another process is working on this batch"):
            Ledger(tmp_path / "ledger.sqlite")
    with Ledger(tmp_path / "ledger.sqlite") as second:
        assert second.counts() == {"pending": 1, "done": 0, "failed": 0}


def test_the_ledger_remembers(tmp_path: Path) -> None:
    path = tmp_path / "deep/ledger.sqlite"
    photos = [Item(str(n), f"/{n}.png", "1,2,30" if n % 2 else None) for n in range(600)]
    with Ledger(path) as ledger:
        assert ledger.plan is None
        assert not ledger.begin({"edits": []}, [])
        assert ledger.plan is None
        assert ledger.begin({"edits": [1]}, iter(photos))
        left = ledger.pending()
        assert next(left) == photos[0]
        ledger.mark(photos[0].name, Outcome("done", 1.5))
        ledger.mark(photos[1].name, Outcome("failed", 2.5, "No."))
        assert list(left) == photos[1:]  # as it was when the first ones were asked for
    with Ledger(path) as ledger:
        assert ledger.plan == {"edits": [1]}
        assert ledger.counts() == {"pending": 598, "done": 1, "failed": 1}
        assert list(ledger.pending()) == photos[2:]
        (entry,) = ledger.entries("failed", limit=5)
        assert (entry.item, entry.attempts, entry.seconds, entry.sentence) == (photos[1], 1, 2.5, "No.")
        assert ledger.retry_failed() == 1
        assert next(ledger.pending()) == photos[1]
        with pytest.raises(ParameterError, match="the same name"):
            ledger.begin({}, [Item("2", "x")])
        assert sum(ledger.counts().values()) == 600
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM photos").fetchone() == (600,)


def test_memory_is_flat_in_the_number_of_photos(tmp_path: Path) -> None:
    """Ten times the photos, the same peak: nothing keeps them all."""
    peaks = []
    for count in (3_000, 30_000):
        with Ledger(tmp_path / f"{count}.sqlite") as ledger:
            tracemalloc.start()
            ledger.begin({}, (Item(f"{n}.png", f"/photos/{n}.png") for n in range(count)))
            assert sum(1 for _ in ledger.pending()) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@given(st.integers(1, 7), st.integers(0, 30))
def test_shards_part_any_number(count: int, photos: int) -> None:
    found = [Shard.parse(f"{index}/{count}") for index in range(count)]
    parts = [{n for n in range(photos) if n % s.count == s.index} for s in found]
    assert sorted(n for part in parts for n in part) == list(range(photos))


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.JPG", "b.png", ".c.png", "d.txt", "sub/e.webp", "sub/f.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"")
    assert [i.name for i in items(".")] == ["a.JPG", "b.png"]
    assert [i.name for i in items("sub/*.png")] == ["f.png"]
    assert [i.name for i in items("**/*")] == ["a.JPG", "b.png", "sub__e.webp", "sub__f.png"]
    assert [i.name for i in items(f"{tmp_path}/*/e.*")] == ["sub__e.webp"]
    assert [(i.name, i.path) for i in items("b.png")] == [("b.png", "b.png")]
    Path("sub/m.jsonl").write_text('{"photo": "e.webp", "crop": "1,2,30"}\n\n{"photo": "/x/y.png", "name": "why"}\n')
    assert list(items("sub/m.jsonl")) == [Item("e.webp", "sub/e.webp", "1,2,30"), Item("why", "/x/y.png")]
    assert list(items("sub/m.jsonl", Shard(1, 2))) == [Item("why", "/x/y.png")]


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_safe_and_apart(one: str, other: str) -> None:
    for text in (one, other):
        name = name_of(text)
        assert name and "/" not in name and not name.startswith(".") and len(name.encode()) < 200
        assert name.isprintable()
    if one != other:
        assert name_of(one) != name_of(other)
        assert name_of(f"a{one}") != name_of(f"a{other}")


@pytest.mark.parametrize(
    ("one", "other"),
    [("a/b.png", "a__b.png"), ("a_/b.png", "a/_b.png"), ("_a.png", "a.png"), (".", ".."), ("", "photo"), ("/a", "a")],
)
def test_paths_that_become_the_same_name_are_told_apart(one: str, other: str) -> None:
    assert name_of(one) != name_of(other)


def test_a_ledger_leads_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        assert ledger.begin({"edits": []}, [Item("../other", "/a.png")])
        with pytest.raises(OutputError, match=r"`\.\./other` in its ledger is not the name of a folder"):
            next(ledger.pending())
