"""Names of results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client import cli
from client.batch.manifest import name_of
from client.files.names import distinct_part, part_of
from client.files.photo import Photo
from tests.client.running import reported


@pytest.mark.parametrize("text", ["脸" * 85, "é" * 127, "a" * 250, "😀." * 60, "a b. " * 40])
def test_names_are_cut_by_bytes(text):
    cut = part_of(text)
    assert 0 < len(cut.encode()) <= 100
    assert part_of(cut) == cut
    assert not cut.endswith((" ", "."))


@pytest.mark.usefixtures("place")
def test_a_photo_with_a_long_name(capsys):
    name = "脸" * 80 + ".png"
    Path("me.png").rename(name)
    report = reported(capsys, "invert", name, "--edit", "age=1")
    assert Path(report["inversion"]).is_file()
    assert Path(report["edits"][0]["image"]).is_file()


@pytest.mark.parametrize(
    ("one", "other"),
    [("a😀", "a😁"), ("IMG[1]", "IMG(1)"), ("a/b", "a_b"), ("x.", "x"), ("a?", "a*"), ("\udcff", "\udcfe")],
)
def test_names_that_would_be_the_same_are_told_apart(one, other):
    assert distinct_part(one) != distinct_part(other)
    for name in (one, other):
        assert distinct_part(name).isprintable()
        assert len(distinct_part(name).encode()) <= 100


@pytest.mark.parametrize("text", ["हिन्दी", "한국어", "e\u0301", "Ünïcödé", "ภาษาไทย"])
def test_letters_and_marks_stay(text):
    assert distinct_part(text) == text
    assert name_of(f"{text}.png") == f"{text}.png"


@pytest.mark.parametrize(
    "name", ["sheet.jpg", "Sheet.JPG", "ledger.sqlite", "report.json", "report", "sheet-0-of-2.jpg"]
)
def test_names_of_the_batchs_own_files_are_reserved(name):
    assert name_of(name) != name
    assert name_of(f"my {name}") == f"my {name}"


@pytest.mark.usefixtures("place")
def test_a_batch_of_odd_names(capsys):
    data = Path("me.png").read_bytes()
    Path("photos").mkdir()
    names = ["sheet.jpg", "ledger.sqlite.png", "IMG[1].png", "IMG(1).png", "हिन्दी.png", "a.png", "a.jpg"]
    for name in names:
        (Path("photos") / name).write_bytes(data)
    Path(os.fsdecode(b"photos/\xff\xfe.png")).write_bytes(data)
    for name in ("x.heic.txt", "notes.txt"):
        (Path("photos") / name).write_bytes(b"")
    (Path("photos") / "folder").mkdir()
    batch = ["batch", "edit", "--fast", "--photos", "photos", "--out", "b"]
    report = reported(capsys, *batch)
    assert report["photos"] == {"pending": 0, "done": len(names) + 1, "failed": 0}
    assert report["left_out"] == {"folder": 1, "txt": 2}
    assert len(list(Path("b").glob("*/photo.inversion.safetensors"))) == len(names) + 1
    assert Path("b/sheet.jpg").is_file()
    Path(f"b/a.png/.{'0' * 16}.tmp").write_bytes(b"")
    assert cli.main([*batch, "--resume"]) == 0
    assert not list(Path("b").rglob("*.tmp"))
    assert cli.main(["batch", "edit", "--fast", "--photos", "photos/IMG[1].png", "--out", "c"]) == 0
    assert len(list(Path("c").glob("*/photo.inversion.safetensors"))) == 1


@pytest.mark.usefixtures("place")
def test_a_photo_that_upsets_the_client_fails_alone(capsys, monkeypatch):
    data = Path("me.png").read_bytes()
    Path("photos").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (Path("photos") / name).write_bytes(data)
    opened = Photo.open

    def upset(path):
        if path.endswith("b.png"):
            raise KeyError("anything")
        return opened(path)

    monkeypatch.setattr(Photo, "open", upset)
    report = reported(capsys, "batch", "edit", "--fast", "--photos", "photos", "--out", "b", code=1)
    assert report["photos"] == {"pending": 0, "done": 2, "failed": 1}
    assert report["failures"][0]["sentence"] == "unexpected KeyError: 'anything'"
