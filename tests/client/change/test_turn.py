"""A head that turns along a direction of which that is not known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from client.change.filters import Floats, resized, warped
from client.change.paste import Paste
from client.change.turn import Turn, _modes, turned
from client.files.photo import Photo
from client.frames.frame import Frame
from tests.client.change.test_paste import picture

SIDE = 256
UPRIGHT = np.eye(2, 3, dtype=np.float32)
EVERYWHERE = np.ones((SIDE, SIDE), np.float32)
# A face that fills half of the square, turned by 90 degrees.
LYING = np.array([[0, 2, 0.1], [-2, 0, -0.1]], np.float32)


def turned_by(plain: Floats, numbers: list[float], transform: Floats) -> Floats:
    """The picture whose head turned by these numbers, float32 [SIDE, SIDE, 3]."""
    flow = _modes(transform, SIDE) @ np.array(numbers, np.float32)
    return warped(plain, flow * SIDE)


def plain(seed: int = 7) -> Floats:
    return picture(SIDE, SIDE, seed).astype(np.float32)


@pytest.mark.parametrize("numbers", [[0, 0, 0, 0, 0.08], [0.01, 0, 0.01, -0.02, -0.09]])
@pytest.mark.parametrize("transform", [UPRIGHT, LYING], ids=["upright", "lying"])
def test_a_turn_is_found(numbers: list[float], transform: Floats) -> None:
    before = plain()
    after = turned_by(before, numbers, transform)
    found = turned(after, before, transform, EVERYWHERE)
    assert found.share == 1
    wanted = resized(_modes(transform, SIDE) @ np.array(numbers, np.float32), (128, 128))
    assert np.abs(found.flow - wanted).max() * SIDE < 2


def test_a_turn_is_found_where_half_of_it_shows_something_else() -> None:
    """Hair and an ear that the plain render has not."""
    before = plain()
    after = turned_by(before, [0, 0, 0, 0, 0.08], UPRIGHT)
    after[:, 150:] = plain(8)[:, 150:]
    wanted = resized(_modes(UPRIGHT, SIDE)[..., 4] * np.float32(0.08), (128, 128))
    found = turned(after, before, UPRIGHT, EVERYWHERE)
    assert found.share == 1
    assert np.abs(found.flow - wanted).max() * SIDE < 6


def still(found: Turn) -> bool:
    return found.share == 0 and not found.flow.any()


def test_what_does_not_count_tells_nothing() -> None:
    before = plain()
    after = turned_by(before, [0, 0, 0, 0, 0.12], UPRIGHT)
    half, one_side = EVERYWHERE.copy(), before.copy()
    half[:, 128:], one_side[:, 128:] = 0, after[:, 128:]
    assert turned(one_side, before, UPRIGHT, EVERYWHERE).share == 1
    assert still(turned(one_side, before, UPRIGHT, half))
    assert still(turned(after, before, UPRIGHT, 0 * EVERYWHERE))


def test_what_does_not_turn_stays() -> None:
    before, smile = plain(), plain()
    smile[165:205, 90:166] = plain(9)[165:205, 90:166]
    assert still(turned(before, before, UPRIGHT, EVERYWHERE))
    assert still(turned(smile, before, UPRIGHT, EVERYWHERE))
    assert still(turned(np.full_like(before, 90), np.full_like(before, 90), UPRIGHT, EVERYWHERE))


def test_without_a_face_in_the_square_nothing_turns() -> None:
    before = plain()
    after = turned_by(before, [0, 0, 0, 0, 0.08], UPRIGHT)
    assert still(turned(after, before, None, EVERYWHERE))
    assert still(turned(after, before, np.array([[1, 0, 9], [0, 1, 0]], np.float32), EVERYWHERE))


def test_pictures_that_have_nothing_in_common_turn_little() -> None:
    found = turned(plain(1), plain(2), UPRIGHT, EVERYWHERE)
    assert np.isfinite(found.flow).all()
    assert np.hypot(found.flow[..., 0], found.flow[..., 1]).max() <= 0.2 + 1e-6


def test_another_ear_beside_a_turned_face_is_left_out_and_the_photo_turns() -> None:
    before = plain()
    after = turned_by(before, [0, 0, 0, 0, 0.08], UPRIGHT)
    other = after.copy()
    other[100:160, 20:50] = (250, 20, 20)
    photo, render, edited = (x.clip(0, 255).astype(np.uint8) for x in (before, before, other))
    frame = Frame("aligned", 0.0, 0.0, float(SIDE))
    found = np.asarray(Paste(Photo(Image.fromarray(photo), "photo.png", ""), frame, render)(edited)).astype(float)
    ear, middle = np.s_[110:150, 28:42], np.s_[70:190, 70:190]
    assert (found[ear][..., 0] - found[ear][..., 1]).mean() < 0.25 * (other[ear][..., 0] - other[ear][..., 1]).mean()
    assert np.abs(found - after)[middle].mean() < 0.3 * np.abs(before - after)[middle].mean()
