"""Faces of a photo on the real Triton: found, inverted, and edited in one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import Inversion
from server.sidecar import LocalSidecar
from server.triton import LocalTriton
from server_tests.client.commands import report
from server_tests.client.test_L0_docs import couple


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a photo of two people, small in a wide picture."""
    page = Image.new("RGB", (1600, 900), (90, 110, 120))
    page.paste(couple(), (300, 200))
    page.save(tmp_path / "two.png")
    return tmp_path


def test_faces_are_found_where_they_are(triton: LocalTriton, place: Path) -> None:
    made = report(place, "faces", "two.png", "--out", "boxes.png", url=triton.url)
    assert [face["number"] for face in made["faces"]] == [1, 2]
    assert made["note"] is None and (place / "boxes.png").is_file()
    noses = np.array([face["landmarks"][2] for face in made["faces"]])
    # The second person is the first one's mirror image, beside it.
    np.testing.assert_allclose(noses.sum(axis=0), [2 * (300 + 512), 2 * noses[0, 1]], atol=12)
    for face in made["faces"]:
        x, y, width, height = face["box"]
        points = np.array(face["landmarks"])
        assert ((points > [x, y]) & (points < [x + width, y + height])).all()
        # In the photo, the eye at the left is the left one, and above the mouth.
        assert points[0, 0] < points[1, 0] and points[0, 1] < points[3, 1]


def test_a_photo_without_faces_is_said(triton: LocalTriton, place: Path) -> None:
    Image.new("RGB", (300, 200), (90, 110, 120)).save(place / "none.png")
    assert report(place, "faces", "none.png", url=triton.url)["faces"] == []


def test_all_faces_are_edited_in_one_photo(triton: LocalTriton, place: Path) -> None:
    command = ["invert", "--fast", "two.png", "--face", "all", "--edit", "age=3"]
    made = report(place, *command, url=triton.url)
    assert [each["frame"]["kind"] for each in made["inversions"]] == ["aligned", "aligned"]
    (edit,) = made["edits"]
    before, after = (np.asarray(Image.open(place / name), int) for name in ("two.png", edit["image"]))
    change = np.abs(after - before).mean(axis=2)
    frames = [Inversion.load(place / each["inversion"]).frame for each in made["inversions"]]
    for frame in frames:
        x, y = frame.middle.astype(int)
        assert change[y - 60 : y + 60, x - 60 : x + 60].mean() > 3
    rows, columns = np.mgrid[:900, :1600] + 0.5
    outside = np.ones((900, 1600), bool)
    for frame in frames:
        places = frame.to_square(np.stack([columns.ravel(), rows.ravel()], axis=1)).reshape(900, 1600, 2)
        outside &= ~((places > 0) & (places < 1)).all(axis=2)
    assert outside.mean() > 0.2
    assert not change[outside].any()
    # The same from the inversions.
    paths = [each["inversion"] for each in made["inversions"]]
    edited = report(
        place, "edit", *paths, "--photo", "two.png", "--direction", "age", "--strength", "3", "--out", "again",
        url=triton.url,
    )  # fmt: skip
    again = np.asarray(Image.open(place / edited["edits"][0]["image"]), int)
    assert np.abs(again - after).mean() < 0.1


@pytest.mark.slow
def test_all_faces_are_refined_at_a_time(triton: LocalTriton, sidecar: LocalSidecar, place: Path) -> None:
    command = ["invert", "two.png", "--face", "all", "--steps", "1", "--edit", "age=3"]
    made = report(place, *command, url=triton.url, refine_url=sidecar.url)
    assert [each["refinement"]["step"] for each in made["inversions"]] == [1, 1]
    assert made["failed"] == []
    assert (place / made["edits"][0]["image"]).is_file()
