"""Edits that go into the whole photo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from client import Inversion, Inverter, Paste, Photo, PhotoError, cli
from client.change.blend import Blend, Change
from client.change.filters import Floats
from client.files import direction
from tests.client.fakes import SIDE
from tests.client.running import failed, opened, reported
from tests.client.test_faces import PLACES, picture

FILE = "out/me/me.inversion.safetensors"
EDIT = ["edit", FILE, "--direction", "age", "--strength", "3"]


@pytest.fixture
def inverted(place: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(["invert", "--fast", "me.png", "--crop", "20,10,60"]) == 0
    capsys.readouterr()
    return place


def image_of(capsys: pytest.CaptureFixture[str], command: list[str]) -> tuple[Image.Image, str]:
    """The picture that a command makes, and what it warns of."""
    assert cli.main([*command, "--json"]) == 0
    said = capsys.readouterr()
    return opened(json.loads(said.out)["edits"][0]["image"]), said.err


@pytest.mark.usefixtures("inverted")
def test_an_edit_is_the_whole_photo_with_the_change_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    image, warning = image_of(capsys, EDIT)
    assert warning == ""
    before, after = np.asarray(opened("me.png"), int), np.asarray(image, int)
    assert after.shape == before.shape
    inside = np.s_[10:70, 20:80]
    # The pretended server draws the inversion brighter than the edit.
    assert (after[inside] - before[inside]).mean() < -5
    outside = np.ones(before.shape[:2], bool)
    outside[inside] = False
    assert np.array_equal(after[outside], before[outside])


@pytest.mark.usefixtures("place")
def test_invert_gives_it_too_and_the_render_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["invert", "--fast", "me.png", "--edit", "age=3"]
    whole, _ = image_of(capsys, command)
    assert whole.size == (120, 90)
    render, _ = image_of(capsys, [*command, "--show", "render", "--force"])
    assert render.size == (SIDE, SIDE)
    lossy, _ = image_of(capsys, [*command, "--format", "jpeg", "--force"])
    assert lossy.size == (120, 90)
    assert Path("out/me/me.age+3.jpg").read_bytes().startswith(b"\xff\xd8")
    assert not Path("out/me/me.age+3.png").exists()


@pytest.mark.usefixtures("place")
def test_a_refined_inversion_is_edited_in_the_whole_photo(capsys: pytest.CaptureFixture[str]) -> None:
    whole, _ = image_of(capsys, ["invert", "me.png", "--edit", "age=3"])
    assert whole.size == (120, 90)


@pytest.mark.usefixtures("inverted")
def test_another_photo_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (120, 90)).save("other.png")
    assert "`other.png` is not the photo that was inverted: expected `me.png`" in failed(
        capsys, *EDIT, "--photo", "other.png"
    )
    with pytest.raises(PhotoError, match="not the photo that was inverted"):
        Inversion.load(FILE).require_photo(Photo.open("other.png"))
    assert "--photo does nothing with --show render" in failed(capsys, *EDIT, "--photo", "me.png", "--show", "render")


@pytest.mark.usefixtures("inverted")
def test_without_the_photo_a_warning_says_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("me.png").rename("elsewhere.png")
    image, warning = image_of(capsys, EDIT)
    assert image.size == (SIDE, SIDE)
    assert (
        "warning: `me.png` is not beside the inversion, so this edits the generator's picture: pass --photo" in warning
    )
    # A photo of the same name that is another one.
    Image.new("RGB", (120, 90)).save("me.png")
    _, warning = image_of(capsys, [*EDIT, "--out", "again"])
    assert "pass --photo" in warning
    image, warning = image_of(capsys, [*EDIT, "--photo", "elsewhere.png", "--out", "whole"])
    assert (image.size, warning) == ((120, 90), "")


@pytest.mark.usefixtures("place")
def test_a_refined_inversion_holds_its_square(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["invert", "me.png"]) == 0
    capsys.readouterr()
    Path("me.png").unlink()
    image, warning = image_of(capsys, EDIT)
    assert image.size == (SIDE, SIDE)
    assert "so this edits the square that was inverted" in warning


@pytest.mark.usefixtures("inverted")
def test_the_api_gives_whole_photos_with_the_photo(url: str) -> None:
    with Inverter(url) as inverter:
        inversion = Inversion.load(FILE)
        renders = inverter.edit(inversion, "age", [-3.0, 3.0])
        whole = inverter.edit(inversion, "age", [-3.0, 3.0], "me.png")
        paste = Paste(Photo.open("me.png"), inversion.frame, inverter.render(inversion))
    assert renders.shape == (2, SIDE, SIDE, 3)
    assert whole.shape == (2, 90, 120, 3)
    assert all(np.array_equal(paste(render), picture) for render, picture in zip(renders, whole, strict=True))


@pytest.mark.parametrize(
    ("said", "turn", "features", "longer"),
    [
        ({}, 0.0, 1.0, 1.0),
        ({"turns": "0.15", "gain": "1.5"}, 0.45, 1.0, 1.5),
        ({"features": "0.5", "gain": "2.5"}, 0.0, 0.5, 2.5),
    ],
)
@pytest.mark.usefixtures("inverted")
def test_every_way_to_edit_does_in_a_photo_what_the_direction_says(
    said: dict[str, str], turn: float, features: float, longer: float, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    age, name, seen = direction.load("ffhq", "age"), "own.safetensors", []
    save_file({"direction": age.vector}, name, metadata={"generator": age.generator} | said)

    class Watched(Blend):
        def __call__(self, edited: Floats, *, turn: float = 0.0, features: float = 1.0) -> Change:
            seen.append((turn, features, float(edited.mean())))
            return super().__call__(edited, turn=turn, features=features)

    monkeypatch.setattr("client.change.paste.Blend", Watched)
    Path("photos").mkdir()
    Path("me.png").rename("photos/me.png")
    fast = ["invert", "--fast", "photos/me.png", "--edit", f"{name}=2", "--out"]
    photo = ["--photo", "photos/me.png", "--out", "edited"]
    assert cli.main(["edit", FILE, "--direction", name, "--strength", "2", *photo]) == 0
    assert cli.main([*fast, "one"]) == 0
    assert cli.main([*fast, "all", "--face", "all"]) == 0
    assert cli.main(["batch", "edit", "--fast", "--photos", "photos", "--edit", f"{name}=2", "--out", "batch"]) == 0
    with Inverter(url) as inverter:
        inverter.edit(Inversion.load(FILE), name, [2.0], "photos/me.png")
    # The served model's picture is 10 levels brighter for each length of the step.
    assert seen == [(pytest.approx(turn), features, pytest.approx(128 + 10 * 2 * longer))] * 5
    Path("photos/me.png").rename("me.png")
    assert cli.main(["edit", FILE, "--direction", name, "--strength", "2", "--show", "render", "--out", "render"]) == 0
    (render,) = (path for path in Path("render").glob("*+2.png"))
    assert np.asarray(Image.open(render)).mean() == pytest.approx(128 + 10 * 2)


@pytest.fixture
def two_faces(place: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    picture(place / "two.png")
    report = reported(capsys, "invert", "--fast", "two.png", "--face", "all", "--edit", "age=-3,3")
    assert [edit["image"] for edit in report["edits"]] == [f"out/two/two.faces.age{s}.png" for s in ("-3", "+3")]
    assert report["sheet"] == "out/two/two.faces.sheet.png"
    assert [each["edits"] for each in report["inversions"]] == [[], []]
    return place


def faces_changed(path: str) -> list[bool]:
    """Whether each of the two faces differs from the photo."""
    changed = (np.asarray(opened(Path("two.png")), int) != np.asarray(opened(Path(path)), int)).any(axis=2)
    return [bool(changed[y - 20 : y + 20, x - 20 : x + 20].any()) for x, y in PLACES]


def test_all_faces_are_edited_in_one_photo(two_faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faces_changed("out/two/two.faces.age+3.png") == [True, True]
    # The same later, from their inversions.
    paths = [f"out/two/two.face-{number}.inversion.safetensors" for number in (1, 2)]
    command = ["edit", *paths, "--photo", "two.png", "--direction", "age", "--strength", "3"]
    (edit,) = reported(capsys, *command, "--out", "again")["edits"]
    assert edit["image"] == "again/two.faces.age+3.png"
    assert Path(edit["image"]).read_bytes() == (two_faces / "out/two/two.faces.age+3.png").read_bytes()
    # One face alone leaves the other.
    (edit,) = reported(capsys, "edit", paths[0], *command[3:])["edits"]
    assert faces_changed(edit["image"]) == [False, True]


def test_replaced_faces_take_their_edits_along(two_faces: Path) -> None:
    command = ["invert", "--fast", "two.png", "--force"]
    assert cli.main(command) == 0
    assert (two_faces / "out/two/two.faces.age+3.png").exists()
    assert cli.main([*command, "--face", "all", "--edit", "smile=1"]) == 0
    assert sorted(path.name for path in Path("out/two").glob("two.faces.*")) == [
        "two.faces.sheet.png",
        "two.faces.smile+1.png",
    ]


@pytest.mark.usefixtures("place")
def test_all_faces_of_a_photo_without_one_are_its_square(capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("none.png"), ())
    assert cli.main(["invert", "--fast", "none.png", "--face", "all", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "warning: `none.png`: no face found: inverting the centred square\n"
    (made,) = json.loads(captured.out)["inversions"]
    assert made["inversion"] == "out/none/none.inversion.safetensors"


@pytest.mark.usefixtures("two_faces")
def test_several_inversions_are_of_one_photo_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["invert", "--fast", "me.png"]) == 0
    capsys.readouterr()
    paths = [f"out/two/two.face-{number}.inversion.safetensors" for number in (1, 2)]
    edit = ["--direction", "age", "--strength", "1"]
    for inversions, more, words in (
        ([paths[0], FILE], [], "of different photos, `two.png` and `me.png`"),
        (paths, ["--photo", "me.png"], "`me.png` is not the photo that was inverted"),
        (paths, ["--show", "render"], "--show render takes one inversion"),
    ):
        assert words in failed(capsys, "edit", *inversions, *edit, *more)
    Path("two.png").unlink()
    assert "cannot find `two.png` beside the inversions: pass --photo" in failed(capsys, "edit", *paths, *edit)
