"""Colours of a photo with a change in it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from client.change.paste import Paste
from client.files.photo import Photo
from client.frames.frame import Frame
from client.frames.pose import Pose

SIDE = 256
FRAME = Frame("aligned", 0.0, 0.0, float(SIDE))
SKIN, TEETH, LIPS, WALL = (190, 130, 90), (200, 185, 170), (190, 110, 115), (70, 100, 200)


def face(mouth: tuple[int, int, int], wall: tuple[int, int, int] = WALL) -> np.ndarray:
    """A flat face before a wall, uint8 [SIDE, SIDE, 3]."""
    found = np.full((SIDE, SIDE, 3), wall, np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    found[np.hypot(columns / 0.3, rows / 0.4) < 1] = SKIN
    found[170:200, 90:166] = mouth
    return found


def edited(
    photo: np.ndarray,
    plain: np.ndarray,
    after: np.ndarray,
    *,
    frame: Frame = FRAME,
    pose: Pose | None = None,
) -> np.ndarray:
    there = Photo(Image.fromarray(photo), "photo.png", "")
    return np.asarray(Paste(there, frame, plain, pose=pose)(after)).astype(int)


def test_teeth_that_the_photo_shows_stay_white() -> None:
    """The plain render has lips where the photo has teeth: what makes them white would make the photo's blue."""
    mouth = edited(face(TEETH), face(LIPS), face(TEETH))[175:195, 100:156].mean(axis=(0, 1))
    assert mouth[0] >= mouth[2] - 3, mouth
    plain = edited(face(LIPS), face(LIPS), face(TEETH))[175:195, 100:156].mean(axis=(0, 1))
    assert np.abs(plain - TEETH).max() < 12, plain


def test_a_black_and_white_photo_stays_so() -> None:
    grey = np.asarray(Image.fromarray(face(LIPS)).convert("L").convert("RGB"))
    found = edited(grey, face(LIPS), face(TEETH))
    assert np.ptp(found, axis=2).max() <= 1
    assert np.abs(found - grey).max() > 30
    coloured = edited(face(LIPS), face(LIPS), face(TEETH))
    assert np.ptp(coloured, axis=2).max() > 50


@pytest.mark.parametrize("kind", ["square", "crop"])
def test_a_wall_keeps_its_colour_where_the_face_is_known(kind: str) -> None:
    frame = Frame(kind, 0.0, 0.0, float(SIDE))  # type: ignore[arg-type]
    after = face(TEETH, (100, 95, 110))
    known = edited(face(LIPS), face(LIPS), after, frame=frame, pose=Pose(np.eye(2, 3, dtype=np.float32)))
    unknown = edited(face(LIPS), face(LIPS), after, frame=frame)
    corner = slice(70, 90), slice(4, 14)
    assert np.abs(known[corner] - WALL).max() <= 1
    assert np.abs(unknown[corner] - WALL).max() > 20
    assert np.abs(known[175:195, 100:156].mean(axis=(0, 1)) - TEETH).max() < 12


def test_far_from_the_face_nothing_changes() -> None:
    """A tie below a face that fills the upper left quarter."""
    photo = np.full((SIDE, SIDE, 3), WALL, np.uint8)
    after = np.full((SIDE, SIDE, 3), (250, 250, 250), np.uint8)
    frame, where = Frame("square", 0.0, 0.0, float(SIDE)), np.array([[2, 0, 1], [0, 2, 1]], np.float32)
    found = edited(photo, photo, after, frame=frame, pose=Pose(where))
    assert (found[170:, 40:80] == WALL).all()
    assert np.abs(found[100, 64] - WALL).max() > 40
    where[:, 2] = 50  # a face beyond the square
    assert (edited(photo, photo, after, frame=frame, pose=Pose(where)) == WALL).all()


def test_a_face_that_is_not_in_the_middle_changes_where_it_is() -> None:
    """The whole square shows a face of half the size in its upper left quarter."""
    small = np.asarray(Image.fromarray(face(LIPS)).resize((SIDE // 2, SIDE // 2)))
    big = np.pad(small, ((0, SIDE // 2), (0, SIDE // 2), (0, 0)), mode="edge")
    after = big.copy()
    after[85:100, 45:83] = TEETH
    frame, where = Frame("square", 0.0, 0.0, float(SIDE)), np.array([[2, 0, 1], [0, 2, 1]], np.float32)
    found = edited(big, big, after, frame=frame, pose=Pose(where))
    assert np.abs(found[88:97, 50:78].mean(axis=(0, 1)) - TEETH).max() < 15
