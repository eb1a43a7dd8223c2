"""``bench paper``: the photos that it reads, how faces are aligned and moved, and the background of an edit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.__main__ import main
from bench.paper import cases, command
from bench.paper.cases import DEGREES, figure_one, figure_two, move_of, read_photos
from bench.paper.measures import background_change
from bench.targets import SIDE, Image8, moved
from judges.faces import Face


def face(*landmarks: tuple[float, float], box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Face:
    return Face(np.array(box, np.float32), np.array(landmarks, np.float32), 1.0)


UPRIGHT = face((40, 50), (60, 50), (50, 60), (42, 70), (58, 70))


class Detector:
    """Finds the same face in every image that is not dark."""

    def portrait(self, image: Image8) -> Face | None:
        return UPRIGHT if image.mean() > 50 else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cases, "FaceDetector", Detector)
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def save(path: Path, level: int) -> None:
    Image.new("RGB", (120, 100), (level, level, level)).save(path)


def test_every_photo_of_a_folder_is_read_or_reported(folder: Path) -> None:
    for name, level in (("a.png", 200), ("a.jpg", 180), ("dark.png", 5), (".hidden.png", 200)):
        save(folder / name, level)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "sub").mkdir()
    found = read_photos(folder, most=50)
    assert list(found.squares) == ["a.jpg", "a.png", "dark.png"]
    assert list(found.faces) == ["a.jpg", "a.png"]
    assert found.faceless == ["dark.png"]
    assert all(square.shape == (SIDE, SIDE, 3) for square in (*found.squares.values(), *found.faces.values()))
    (sentence,) = found.unreadable
    assert "broken.png" in sentence
    notes = command.notes(found)
    assert len(notes) == 2 and "broken.png" in notes[0] and "dark.png" in notes[1]
    assert list(read_photos(folder, most=2).squares) == ["a.jpg", "a.png"]


@pytest.mark.parametrize("name", ["empty", "none"])
def test_a_folder_without_photos_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (folder / "empty").mkdir()
    assert main(["paper", "--photos", str(folder / name)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no ") and error.count("\n") == 1


def test_a_move_has_its_degree_and_one_way_for_each_face() -> None:
    for name in ("a.png", "b.png"):
        shifts = [move_of("translation", d, name=name, seed=1) for d in (0.1, 0.3)]
        assert [math.hypot(m.right, m.down) for m in shifts] == pytest.approx([0.1, 0.3])
        assert math.atan2(shifts[0].down, shifts[0].right) == pytest.approx(math.atan2(shifts[1].down, shifts[1].right))
        turns = [move_of("rotation", d, name=name, seed=1).degrees for d in (15, 45)]
        assert [abs(t) for t in turns] == [15, 45] and turns[0] * turns[1] > 0
        assert move_of("scale", 0.6, name=name, seed=1).scale == 0.6
    names = [f"{n}.png" for n in range(40)]
    assert {move_of("rotation", 15, name=n, seed=0).degrees for n in names} == {15, -15}
    ways = {move_of("translation", 0.1, name="a.png", seed=seed) for seed in range(5)}
    assert len(ways) == 5


def test_cases_are_every_face_at_every_degree() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = list(figure_one({"a": image, "b": image}, "photos", DEGREES, seed=0))
    assert len(found) == 2 * (1 + sum(map(len, DEGREES.values())))
    np.testing.assert_array_equal(found[0].image, image)
    shown = next(c for c in found if (c.name, c.transform, c.degree) == ("b", "rotation", 30))
    np.testing.assert_array_equal(shown.image, moved(image, move_of("rotation", 30, name="b", seed=0)))
    assert not np.array_equal(shown.image, image)
    (photo,) = figure_two({"a": image})
    assert (photo.figure, photo.transform, photo.degree) == (2, "plain", 0)


def test_the_background_is_what_is_outside_the_grown_box() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    edited = image.copy()
    edited[30:70, 30:70] = 200  # inside the box, grown by a quarter
    centred = face(*UPRIGHT.landmarks.tolist(), box=(35, 35, 30, 30))
    assert background_change(image, edited, centred) == 0
    edited[:20] = 30
    assert background_change(image, edited, centred) == pytest.approx(
        20 * 100 * 30 / (10_000 - 45 * 45)
    )  # pixels 28 to 72 are inside
    assert background_change(image, edited, face(*UPRIGHT.landmarks.tolist(), box=(0, 0, 100, 100))) is None
