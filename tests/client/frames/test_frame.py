from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from client.errors import PhotoError
from client.files.photo import Photo
from client.frames.frame import Frame, fault
from client.limits import MIN_SIDE
from tests.client.fakes import check_sentence, unhurried

# An upright face: eyes 20 apart, the mouth 20 below them.
FACE = np.array([[40, 50], [60, 50], [50, 60], [42, 70], [58, 70]], float)
numbers = st.floats(-5000, 5000, allow_nan=False)


def turned(degrees: float, scale: float, middle: tuple[float, float]) -> np.ndarray:
    turn = scale * np.exp(1j * math.radians(degrees))
    points = (FACE[:, 0] + 1j * FACE[:, 1] - (50 + 55j)) * turn + complex(*middle)
    return np.stack([points.real, points.imag], axis=1)


def test_the_square_is_the_largest_centred_one_on_whole_pixels() -> None:
    frame = Frame.square((101, 60))
    assert (frame.kind, frame.x, frame.y, frame.dx, frame.dy) == ("square", 20, 0, 60, 0)
    assert Frame.square((40, 101)) == Frame("square", 0, 30, 40)
    assert frame.within((101, 60)) and not frame.within((79, 60))


def test_the_aligned_square_is_that_of_ffhq() -> None:
    frame = Frame.aligned(FACE)
    # 4 x 20 against 3.6 x 20; the middle a tenth of the way down to the mouth.
    np.testing.assert_allclose(frame.middle, [50, 52])
    assert (frame.side, frame.angle) == pytest.approx((80, 0))
    long = [(40, 50), (60, 50), (50, 65), (42, 90), (58, 90)]
    assert Frame.aligned(long).side == pytest.approx(3.6 * 40)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (30, 1.0), (-75, 1.7), (180, 0.8)])
def test_an_aligned_square_turns_and_scales_with_the_face(degrees: float, scale: float) -> None:
    frame, face = Frame.aligned(FACE), turned(degrees, scale, (300, 200))
    moved = Frame.aligned(face)
    assert moved.side == pytest.approx(80 * scale)
    assert math.remainder(moved.angle - degrees, 360) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(moved.to_square(face), frame.to_square(FACE), atol=1e-9)


def test_upright_keeps_the_middle_and_the_size_of_the_aligned_square() -> None:
    face = turned(30, 2, (300, 200))
    aligned, upright = Frame.aligned(face), Frame.upright(face)
    assert upright.side == pytest.approx(aligned.side)
    assert (upright.angle, aligned.angle) == pytest.approx((0, 30))
    np.testing.assert_allclose(upright.middle, aligned.middle)


@unhurried
@given(x=numbers, y=numbers, degrees=st.floats(-180, 180), side=st.floats(16, 5000))
def test_the_matrices_are_similarities_and_undo_each_other(x: float, y: float, degrees: float, side: float) -> None:
    turn = math.radians(degrees)
    frame = Frame("aligned", x, y, side * math.cos(turn) * 1.001, side * math.sin(turn) * 1.001)
    assert frame.matrix.dtype == np.float64 and frame.matrix.shape == frame.inverse.shape == (2, 3)
    both = np.vstack([frame.matrix, [0, 0, 1]]) @ np.vstack([frame.inverse, [0, 0, 1]])
    np.testing.assert_allclose(both, np.eye(3), atol=1e-6)
    linear = frame.matrix[:, :2]
    np.testing.assert_allclose(linear @ linear.T, np.eye(2) / frame.side**2, atol=1e-12)
    assert np.linalg.det(linear) > 0
    np.testing.assert_allclose(frame.to_square(frame.corners), [[0, 0], [1, 0], [1, 1], [0, 1]], atol=1e-6)
    assert Frame.decode(frame.encode()) == frame


@unhurried
@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_a_crop_is_read_from_text(x: int, y: int, size: int) -> None:
    assert Frame.parse_crop(f"{x},{y},{size}") == Frame.crop(x, y, size)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1.5,2,3", "1;2;3", "nan,0,5"])
def test_malformed_crops(text: str) -> None:
    with pytest.raises(PhotoError, match="x,y,size") as caught:
        Frame.parse_crop(text)
    check_sentence(caught.value)


@unhurried
@given(st.integers(-50, 150), st.integers(-50, 150), st.integers(-5, 150))
def test_a_crop_lies_within_the_photo_or_is_refused(x: int, y: int, size: int) -> None:
    photo = Photo(image=Image.new("RGB", (100, 60)), name="it", sha256="")
    inside = x >= 0 and y >= 0 and x + size <= 100 and y + size <= 60 and size >= MIN_SIDE
    if inside:
        assert photo.pixels(Frame.crop(x, y, size), 24).shape == (24, 24, 3)
    else:
        with pytest.raises(PhotoError, match=f"100x60|{MIN_SIDE}") as caught:
            photo.pixels(Frame.crop(x, y, size), 24)
        check_sentence(caught.value)


def test_a_frame_keeps_every_digit_as_text() -> None:
    assert Frame.crop(1, 2, 30).encode() == "crop,1.0,2.0,30.0,0.0"
    assert Frame.decode("crop,1,2,30,0") == Frame.crop(1, 2, 30)
    frame = Frame.aligned(turned(12.3, 1 / 3, (70, 80)))
    assert Frame.decode(frame.encode()) == frame


@pytest.mark.parametrize(
    "text",
    [
        *("", "aligned", "aligned,1,2,30", "aligned,1,2,30,0,0", "oblique,1,2,30,0", "crop,nan,2,30,0"),
        *("crop,1,2,inf,0", "crop,1,2,3,4", "crop,1,2,0,0", "crop,1e300,2,30,0", "crop,a,b,c,d"),
    ],
)
def test_a_text_that_is_no_frame_is_refused(text: str) -> None:
    with pytest.raises(PhotoError) as caught:
        Frame.decode(text)
    check_sentence(caught.value)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (FACE[[1, 0, 2, 4, 3]], "mirrored"),
        (FACE * [1, 0.01], "in one place"),
        (FACE @ [[1, 1], [0.9, 1.1]], "one line"),
        (np.stack([np.arange(5.0), np.arange(5.0)], axis=1) * 10, "one line"),
        (np.zeros((5, 2)), "in one place"),
        (FACE * np.nan, "finite"),
        (FACE[:4], "5 points"),
    ],
)
def test_landmarks_that_make_no_face_are_refused(points: np.ndarray, why: str) -> None:
    assert why in str(fault(points))
    for make in (Frame.aligned, Frame.upright):
        with pytest.raises(PhotoError, match=why) as caught:
            make(points)
        check_sentence(caught.value)


def test_a_face_at_the_edge_may_reach_outside_and_one_that_is_outside_may_not() -> None:
    half = Frame.aligned(turned(10, 1, (0, 60)))
    half.require_photo((120, 120), name="a.jpg")
    assert not half.within((120, 120))
    with pytest.raises(PhotoError, match="hardly any") as caught:
        Frame.aligned(turned(10, 1, (-30, 60))).require_photo((120, 120), name="a.jpg")
    check_sentence(caught.value)
    with pytest.raises(PhotoError, match="does not lie within") as caught:
        Frame.crop(100, 0, 30).require_photo((120, 120), name="a.jpg")
    check_sentence(caught.value)
