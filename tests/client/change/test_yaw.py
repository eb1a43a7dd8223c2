"""A head that turns by a known yaw: a photo's own pixels move, and nothing is painted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from client.change.filters import Floats, warped
from client.change.paste import Paste
from client.change.yaw import SIDE, odd, turning
from client.files.photo import Photo
from client.frames.frame import Frame
from client.frames.pose import Pose
from tests.client.change.test_paste import picture

SQUARE = 128
UPRIGHT = np.eye(2, 3, dtype=np.float32)
NOSE, CHEEK, LEFT, RIGHT = (0.5, 0.58), (0.3, 0.6), (0.15, 0.5), (0.85, 0.5)


def at(flow: Floats, place: tuple[float, float]) -> Floats:
    """The motion at a place of the square, x and y in shares of its side."""
    x, y = (int(share * len(flow)) for share in place)
    return flow[y, x]


def test_the_nose_goes_where_the_face_looks_and_the_outline_the_other_way() -> None:
    for turn in (0.2, -0.2):
        flow = turning(Pose(UPRIGHT), turn, SQUARE)
        sign = np.sign(turn)
        # What is shown at the nose was on the other side before.
        assert sign * at(flow, NOSE)[0] < -0.01
        assert all(sign * at(flow, side)[0] > 0.01 for side in (LEFT, RIGHT))


def test_both_sides_are_mirrored() -> None:
    right, left = (turning(Pose(UPRIGHT), turn, SQUARE) for turn in (0.3, -0.3))
    mirrored = left[:, ::-1] * np.array([-1, 1], np.float32)
    assert np.abs(right - mirrored).max() < 0.005


def test_no_turn_moves_nothing() -> None:
    for own in (-0.3, 0.0, 0.2):
        assert np.abs(turning(Pose(UPRIGHT, own), 0.0, SQUARE)).max() < 1e-3


def test_a_turned_head_turns_back() -> None:
    away = turning(Pose(UPRIGHT), 0.2, SQUARE)
    back = turning(Pose(UPRIGHT, 0.2), -0.2, SQUARE)
    whole = back + warped(away, back * SQUARE)
    head = np.s_[24:104, 24:104]  # near the border pixels are held back
    assert np.abs(whole[head]).max() < 0.15 * np.abs(away[head]).max()


def test_how_far_it_goes_is_bounded() -> None:
    most = turning(Pose(UPRIGHT, 0.3), 0.3, SQUARE)
    np.testing.assert_array_equal(turning(Pose(UPRIGHT, 0.3), 90.0, SQUARE), most)
    np.testing.assert_array_equal(turning(Pose(UPRIGHT, 90.0), 0.1, SQUARE), turning(Pose(UPRIGHT, 70.0), 0.1, SQUARE))
    assert np.isfinite(most).all()


@pytest.mark.parametrize("size", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("degrees", [0, 30])
def test_pixels_come_from_within_the_square_and_stay_in_order(size: float, degrees: int) -> None:
    cos, sin = size * np.cos(np.radians(degrees)), size * np.sin(np.radians(degrees))
    transform = np.array([[cos, -sin, 0.1], [sin, cos, 0.0]], np.float32)
    places = (np.arange(SQUARE) + 0.5) / SQUARE
    for turn in (0.3, -0.3):
        flow = turning(Pose(transform), turn, SQUARE)
        from_where = np.stack(np.meshgrid(places, places), axis=-1) + flow
        assert from_where.min() > 0
        assert from_where.max() < 1
        assert np.diff(from_where[..., 0], axis=1).min() > 0
        assert np.diff(from_where[..., 1], axis=0).min() > 0


@pytest.mark.parametrize("turn", [0.4, -0.4])
@pytest.mark.parametrize("along", [(256.0, 0.0), (250.0, 55.0)])
def test_pixels_come_from_within_a_photo_that_the_square_reaches_outside(
    turn: float, along: tuple[float, float]
) -> None:
    """A face that fills a narrow photo: what is drawn at its edges lies in it, not beyond."""
    size = (170, 230)
    photo = picture(*size, 5)
    frame = Frame("aligned", 85 - (along[0] - along[1]) / 2, 115 - sum(along) / 2, *along)
    paste = Paste(Photo(Image.fromarray(photo), "photo.png", ""), frame, picture(256, 256, 5))
    flow = paste._blend(np.zeros((256, 256, 3), np.float32), turn=turn).motion / 256
    places = (np.arange(256) + 0.5) / 256
    square = np.stack(np.meshgrid(places, places), axis=-1)

    def in_photo(places: Floats) -> Floats:
        return frame.to_photo(places.reshape(-1, 2)).reshape(places.shape).astype(np.float32)

    here, there, free = (in_photo(square + by) for by in (np.zeros(2), flow, turning(Pose(UPRIGHT), turn, 256)))
    inside = ((here > 1) & (here < np.array(size) - 1)).all(axis=-1)
    assert 0.5 < inside.mean() < 0.8
    assert there[inside].min() > 0
    assert (there[inside] < size).all()
    # Without the photo's edges, some would come from beyond.
    assert ((free < 0) | (free > size)).any(axis=-1)[inside].any()
    # And the face turns all the same.
    assert np.sign(turn) * at(flow, NOSE)[0] < -0.01


def test_a_small_tilted_face_turns_where_it_lies_and_what_is_far_stays() -> None:
    """A third of the square, its middle up and to the right, lying on its side."""
    transform = np.array([[0, 3, 0.9], [-3, 0, 0.9]], np.float32)
    flow = turning(Pose(transform), 0.2, SQUARE)
    upright = turning(Pose(UPRIGHT), 0.2, SQUARE)
    place = np.linalg.solve(transform[:, :2].astype(float), 2 * np.array(NOSE) - 1 - transform[:, 2])
    x, y = 0.5 * place + 0.5
    expected = np.linalg.inv(transform[:, :2]) @ at(upright, NOSE)
    np.testing.assert_allclose(at(flow, (x, y)), expected, atol=3e-3)
    assert np.abs(expected).argmax() == 1
    assert np.abs(flow[100:]).max() < 1e-3


def test_the_mean_motion_is_small_where_the_eyes_are() -> None:
    """Faces are aligned by their eyes."""
    flow = odd()
    assert flow.shape == (SIDE, SIDE, 2)
    assert all(abs(at(flow, eye)[0]) < 0.35 * np.abs(flow).max() for eye in ((0.374, 0.469), (0.628, 0.469)))


@pytest.mark.parametrize("times", [1, 3])
def test_a_photos_pixels_turn_and_nothing_is_painted(times: int) -> None:
    side = 256 * times
    photo = picture(side, side, 5)
    frame = Frame("aligned", 0.0, 0.0, float(side))
    plain = np.asarray(Image.fromarray(photo).resize((256, 256)))
    paste = Paste(Photo(Image.fromarray(photo), "photo.png", ""), frame, plain)
    found, other = (np.asarray(paste(render, turn=0.2)).astype(float) for render in (plain, 255 - plain))
    np.testing.assert_array_equal(found, other)
    assert "_flow" not in vars(paste._blend)  # nor are photo and render compared, which takes a while
    expected = warped(photo.astype(np.float32), turning(Pose(UPRIGHT), 0.2, side) * side)
    inner = np.s_[40 * times : 216 * times, 40 * times : 216 * times]
    assert np.abs(found - expected)[inner].mean() < 0.2 * np.abs(photo - expected)[inner].mean()


def test_it_is_another_face_that_is_not_known() -> None:
    """Without a face in the square, the change is painted."""
    photo = picture(256, 256, 5)
    paste = Paste(Photo(Image.fromarray(photo), "photo.png", ""), Frame.square((256, 256)), photo)
    np.testing.assert_array_equal(np.asarray(paste(photo, turn=0.2)), photo)
    assert (np.asarray(paste(255 - photo, turn=0.2)) != photo).any()


def test_what_fades_towards_the_border_does_not_fold() -> None:
    """A frame in the middle of a photo, whose other changes fade out."""
    photo = picture(600, 600, 5)
    frame = Frame("aligned", 150.0, 150.0, 256.0)
    paste = Paste(Photo(Image.fromarray(photo), "photo.png", ""), frame, photo[:256, :256])
    places = np.arange(256)
    for turn in (-0.3, 0.3):
        change = paste._blend(np.zeros((256, 256, 3), np.float32), turn=turn)
        assert np.diff(places + change.motion[..., 0], axis=1).min() > 0
        assert np.diff(places[:, None] + change.motion[..., 1], axis=0).min() > 0
        assert max(np.abs(edge).max() for edge in (change.motion[:, [0, -1]], change.motion[[0, -1]])) < 1


def test_pixels_outside_the_frame_stay() -> None:
    photo = picture(300, 300, 6)
    frame = Frame("upright", 60.0, 50.0, 160.0)
    paste = Paste(Photo(Image.fromarray(photo), "photo.png", ""), frame, picture(160, 160, 6))
    found = np.asarray(paste(picture(160, 160, 6), turn=0.3))
    inside = np.zeros((300, 300), bool)
    inside[50:210, 60:220] = True
    np.testing.assert_array_equal(found[~inside], photo[~inside])
    assert (found[inside] != photo[inside]).any()
