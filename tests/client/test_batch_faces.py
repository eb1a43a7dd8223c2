"""Which frames of its photos a batch inverts and refines, and edits of several faces in one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client import Frame, Inversion, RequestRejected, cli
from client.api import AsyncInverter
from client.batch.ledger import Ledger
from tests.client.fakes import FACE
from tests.client.running import failed, opened, reported, results, save
from tests.client.sidecar_fakes import FakeSidecar, refining
from tests.client.test_faces import PLACES, picture

NOTE = "no face found: inverting the centred square"
BATCH = ["batch", "edit", "--photos", "photos", "--edit", "age=-3,3", "--fast", "--format", "png"]


@pytest.fixture
def photos(place: Path) -> Path:
    """Photos with two faces, one face and none."""
    folder = place / "photos"
    folder.mkdir()
    for name, places in (("two", PLACES), ("one", PLACES[:1]), ("none", ())):
        picture(folder / f"{name}.png", places)
    return place


def changed(before: Path, after: Path) -> np.ndarray:
    return (np.asarray(opened(before), int) != np.asarray(opened(after), int)).any(axis=2)


@pytest.mark.usefixtures("photos")
def test_the_largest_face_is_inverted_and_the_square_of_a_photo_without(capsys: pytest.CaptureFixture[str]) -> None:
    report = reported(capsys, *BATCH, "--out", "out")
    assert report["photos"] == {"pending": 0, "done": 3, "failed": 0}
    (note,) = report["notes"]
    assert (note["name"], note["sentence"]) == ("none.png", NOTE)
    frames = {
        name: Inversion.load(f"out/{name}.png/photo.inversion.safetensors").frame for name in ("one", "two", "none")
    }
    assert frames["two"] == Frame.aligned(FACE + np.add(PLACES[1], 0.5))
    assert frames["one"] == Frame.aligned(FACE + np.add(PLACES[0], 0.5))
    assert frames["none"] == Frame.square((320, 160))
    assert opened(Path("out/two.png/age+3.png")).size == (320, 160)
    assert cli.main([*BATCH, "--out", "out", "--resume"]) == 0
    assert f"note            photos/none.png: {NOTE}" in capsys.readouterr().out


def test_all_faces_are_edited_in_one_picture_and_photos_are_counted(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = reported(capsys, *BATCH, "--out", "out", "--faces", "all")
    assert report["photos"] == {"pending": 0, "done": 3, "failed": 0}
    assert [each["name"] for each in report["notes"]] == ["none.png"]
    assert sorted(path.name for path in (photos / "out/two.png").iterdir()) == [
        *("age+3.png", "age-3.png"),
        *(f"photo.face-{number}.inversion.safetensors" for number in (1, 2)),
        *(f"reconstruction.face-{number}.png" for number in (1, 2)),
    ]
    assert Path("out/none.png/photo.inversion.safetensors").exists()
    both = changed(photos / "photos/two.png", photos / "out/two.png/age+3.png")
    assert all(both[y - 20 : y + 20, x - 20 : x + 20].any() for x, y in PLACES)
    # The same in parts, and from the largest face alone: only that one is changed.
    assert cli.main([*BATCH, "--out", "largest"]) == 0
    one = changed(photos / "photos/two.png", photos / "largest/two.png/age+3.png")
    assert one[:, 200:].any() and not one[:, :60].any()
    with Image.open("out/sheet.jpg") as sheet:
        assert sheet.size == (3 * 160, 3 * 160)


@pytest.mark.usefixtures("photos")
def test_what_stays_of_a_face_is_noted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("client.change.paste.Paste.note", "glasses stay")
    notes = [
        {each["name"]: each["sentence"] for each in reported(capsys, *BATCH, "--out", *more)["notes"]}
        for more in (["all", "--faces", "all"], ["largest"], ["renders", "--show", "render"])
    ]
    none = {"none.png": f"{NOTE}; glasses stay"}
    assert notes == [
        none | {"one.png": "glasses stay", "two.png": "face 1 of 2: glasses stay; face 2 of 2: glasses stay"},
        none | {"one.png": "glasses stay", "two.png": "glasses stay"},
        {"none.png": NOTE},
    ]


def test_a_picture_does_not_depend_on_how_many_are_made_at_a_time(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*BATCH, "--faces", "all"]
    assert cli.main([*command, "--out", "out"]) == 0
    monkeypatch.setattr("client.change.together._BYTES", 1)
    monkeypatch.setattr("client.change.together._KEPT", 0)
    assert cli.main([*command, "--out", "again"]) == 0
    assert results(photos / "out") == results(photos / "again")


@pytest.mark.usefixtures("photos")
def test_a_crop_of_a_photo_comes_first() -> None:
    Path("some.jsonl").write_text('{"photo": "photos/two.png", "crop": "10,20,100"}\n{"photo": "photos/one.png"}\n')
    command = ["batch", "edit", "--photos", "some.jsonl", "--out", "out", "--fast", "--frame", "square"]
    assert cli.main(command) == 0
    frames = [Inversion.load(path).frame for path in sorted(Path("out").glob("*/*.safetensors"))]
    assert {frame.kind for frame in frames} == {"crop", "square"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frame", "round"], "auto, aligned, upright, square or x,y,size"),
        (["--frame", "square", "--faces", "all"], "leave --faces out"),
        (["--faces", "all", "--show", "render"], "leave --show render out"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_choices_that_make_no_sense_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in failed(capsys, *BATCH, "--out", "out", *arguments)
    assert not list(Path("out").glob("*"))


@pytest.mark.usefixtures("photos")
def test_a_batch_keeps_its_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*BATCH, "--out", "out", "--frame", "square"]) == 0
    capsys.readouterr()
    assert "different options (frame)" in failed(capsys, *BATCH, "--out", "out", "--resume")
    # A batch from before there was a choice inverted squares.
    with Ledger(Path("out/ledger.sqlite")) as ledger:
        plan = ledger.plan
        assert plan is not None
        del plan["frame"], plan["faces"]
        ledger._database.execute("UPDATE batch SET value = ? WHERE key = 'plan'", (json.dumps(plan),))
    assert cli.main([*BATCH, "--out", "out", "--resume", "--frame", "square"]) == 0


@pytest.mark.parametrize("method", ["invert", "edit"])
def test_a_face_that_fails_leaves_the_others(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    command, real = [*BATCH, "--faces", "all"], getattr(AsyncInverter, method)
    lost = [Frame.aligned(FACE + np.add(PLACES[0], 0.5))]

    async def rejecting(self: AsyncInverter, first: Any, *rest: Any, **named: Any) -> Any:
        if (rest[0] if method == "invert" else first.frame) in lost:
            raise RequestRejected("the server rejected the request")
        return await real(self, first, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncInverter, method, rejecting)
        report = reported(capsys, *command, "--out", "out", code=1)
        assert report["photos"] == {"pending": 0, "done": 1, "failed": 2}
        one, two = sorted(report["failures"], key=lambda each: each["name"])
        # The only face of a photo is the photo.
        assert (one["name"], one["sentence"]) == ("one.png", "the server rejected the request")
        assert not Path("out/one.png").exists()
        assert two["name"] == "two.png"
        assert two["sentence"].startswith("face 2: the server rejected the request; what could be made of the photo")
        kept = [*(("1", "2") if method == "edit" else ("1",))]
        assert sorted(path.name for path in Path("out/two.png").iterdir()) == [
            *("age+3.png", "age-3.png"),
            *(f"photo.face-{number}.inversion.safetensors" for number in kept),
            *(f"reconstruction.face-{number}.png" for number in kept),
        ]
        some = changed(photos / "photos/two.png", photos / "out/two.png/age+3.png")
        assert some[:, 200:].any() and not some[:, :60].any()
        lost.append(Frame.aligned(FACE + np.add(PLACES[1], 0.5)))
        assert cli.main([*command, "--out", "none"]) == 1
        assert not Path("none/two.png").exists()
    assert cli.main([*command, "--out", "out", "--retry-failed"]) == 0
    assert cli.main([*command, "--out", "whole"]) == 0
    assert results(photos / "out") == results(photos / "whole")


@pytest.mark.usefixtures("place")
def test_photos_are_refined(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("photos").mkdir()
    save(Path("photos/one.png"), 1)
    sidecar = FakeSidecar()
    with refining(sidecar) as address:
        monkeypatch.setenv("UNALIGNED_REFINE_URL", address)
        common = ["batch", "edit", "--photos", "photos", "--method", "idinvert", "--steps", "6", "--format", "png"]
        assert cli.main([*common, "--out", "out"]) == 0
    inversion = Inversion.load("out/one.png/photo.inversion.safetensors")
    assert (inversion.method, inversion.cut) == ("refined:idinvert", 4)
    assert inversion.refinement is not None and inversion.refinement.step == 6
    assert Path("out/one.png/reconstruction.png").exists()
