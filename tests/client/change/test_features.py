"""Edits that leave eyes, brows and nose of a photo mostly as they are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from client.change.filters import Floats
from client.change.paste import Paste
from client.change.places import features
from client.files.photo import Photo
from client.frames.frame import Frame
from client.frames.pose import Pose

SIDE = 256
UPRIGHT = np.eye(2, 3, dtype=np.float32)
# In shares of the side of an aligned face: x and y.
EYE, NOSE, FOREHEAD, MOUTH, CHEEK, HAIR = (0.37, 0.47), (0.5, 0.6), (0.5, 0.25), (0.5, 0.73), (0.33, 0.66), (0.5, 0.03)
WALL = (0.03, 0.1)


def at(field: Floats, place: tuple[float, float]) -> float:
    """A field, float32 [S, S], at a place."""
    x, y = (int(share * len(field)) for share in place)
    return float(field[y, x])


def changed(frame: Frame, share: float, pose: Pose | None = None) -> Floats:
    """How much brighter a photo becomes by an edit that brightens all of it by 40: float32 [SIDE, SIDE]."""
    rng = np.random.default_rng(2)
    photo = np.repeat(rng.normal(110, 10, (SIDE, SIDE, 1)).clip(0, 255), 3, axis=2).astype(np.uint8)
    paste = Paste(Photo(Image.fromarray(photo), "photo.png", ""), frame, photo, pose=pose)
    found = np.asarray(paste(photo + np.uint8(40), features=share)).astype(np.float32) - photo
    return np.asarray(found.mean(axis=2), np.float32)


def test_the_places_follow_the_face() -> None:
    upright = features(UPRIGHT, SIDE)
    assert at(upright, EYE) == at(upright, NOSE) == 1
    assert 0.5 < at(upright, FOREHEAD) < 1
    assert at(upright, MOUTH) == at(upright, CHEEK) == at(upright, HAIR) == 0
    np.testing.assert_allclose(upright, upright[:, ::-1], atol=1e-6)
    # A face that lies upside down has its eyes below.
    np.testing.assert_allclose(features(-UPRIGHT, SIDE), upright[::-1, ::-1], atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_features_get_a_share_of_a_change_the_wall_none_and_the_rest_all(share: float) -> None:
    found = changed(Frame("aligned", 0.0, 0.0, float(SIDE)), share)
    for place in (MOUTH, CHEEK):
        assert at(found, place) == pytest.approx(40, abs=1)
    for place in (EYE, NOSE):
        assert at(found, place) == pytest.approx(40 * share, abs=1)
    assert at(found, WALL) == pytest.approx(40 if share == 1 else 0, abs=1)
    assert 40 * share <= at(found, FOREHEAD) + 1e-3 <= 41


def test_where_a_face_lies_is_not_known_all_changes() -> None:
    frame = Frame("square", 0.0, 0.0, float(SIDE))
    np.testing.assert_array_equal(changed(frame, 0.0), changed(frame, 1.0))
    known = changed(frame, 0.0, Pose(UPRIGHT))
    assert at(known, EYE) == 0
    assert at(known, MOUTH) == pytest.approx(40, abs=1)
