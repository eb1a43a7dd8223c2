from __future__ import annotations

import numpy as np
import pytest

from client.errors import ClientError, ParameterError, PhotoError
from client.frames.choice import ALL, AUTO, MORE_FACES, Wanted, framing
from client.frames.face import Face, pose_in
from client.frames.frame import Frame, transform_between
from protocol.roles import MAX_FACES
from tests.client.fakes import check_sentence
from tests.client.frames.test_frame import FACE, turned

SIZE = (640, 480)


def face(points: np.ndarray) -> Face:
    low, high = points.min(axis=0), points.max(axis=0)
    return Face(np.concatenate([low, high - low]), points, 0.9)


TWO = [face(turned(10, 3, (200, 200))), face(turned(-20, 1, (500, 300)))]


@pytest.mark.parametrize(
    ("frame", "number", "expected"),
    [
        (None, None, Wanted("auto", "largest")),
        ("auto", "all", Wanted("auto", "all")),
        ("aligned", "3", Wanted("aligned", 3)),
        ("upright", "largest", Wanted("upright", "largest")),
        ("square", None, Wanted("square")),
        ("1,2,30", None, Wanted(Frame.crop(1, 2, 30))),
    ],
)
def test_what_is_wanted_is_read(frame: str | None, number: str | None, expected: Wanted) -> None:
    assert Wanted.parse(frame, number) == expected


@pytest.mark.parametrize(
    ("frame", "number", "why"),
    [
        ("round", None, "auto, aligned, upright, square or x,y,size"),
        ("1,2", None, "x,y,size"),
        (None, "0", "a number from 1"),
        (None, "-1", "a number from 1"),
        (None, "9999999999", "a number from 1"),
        (None, "biggest", "largest, all"),
        ("square", "1", "needs no face"),
        ("1,2,30", "all", "needs no face"),
    ],
)
def test_what_makes_no_sense_is_refused(frame: str | None, number: str | None, why: str) -> None:
    with pytest.raises(ClientError, match=why) as caught:
        Wanted.parse(frame, number)
    assert isinstance(caught.value, ParameterError | PhotoError)
    check_sentence(caught.value)


def test_the_yaw_is_that_of_the_nose_whatever_the_roll_and_size() -> None:
    points = FACE.astype(float).copy()
    assert face(turned(30, 3, (50, 60))).yaw == pytest.approx(0, abs=1e-6)
    points[2, 0] += 0.2 * (points[1, 0] - points[0, 0])
    for scale in (1, 5):
        assert face(scale * points[:, ::1]).yaw == pytest.approx(0.2)
    assert face(points * (-1, 1)).yaw == pytest.approx(-0.2)
    points[:2, 0] = 49.9, 50.1
    assert face(points).yaw == -face(points * (-1, 1)).yaw == 1
    points[:2, 0] = FACE[:2, 0]
    rolled = points @ np.array([[0, 1], [-1, 0]])
    assert face(rolled).yaw == pytest.approx(0.2)


def test_a_frame_shows_the_face_that_it_was_cut_to() -> None:
    near = [face(turned(10, 3, (200, 200))), face(turned(-20, 1, (230, 215)))]
    frames = [make(one.landmarks) for one in near for make in (Frame.aligned, Frame.upright)]
    poses = [pose_in(near, frame) for frame in frames]
    for pose, kind in zip(poses, ("aligned", "upright", "aligned", "upright"), strict=True):
        assert pose is not None
        assert np.hypot(*pose.transform[:, 0]) == pytest.approx(1, abs=1e-5)
        assert (abs(pose.transform[1, 0]) < 1e-5) == (kind == "aligned")
    square = pose_in(near, Frame.square(SIZE))
    assert square is not None
    np.testing.assert_allclose(square.transform, transform_between(Frame.square(SIZE), frames[0]))
    assert pose_in(near, Frame.crop(0, 0, 20)) is None


def test_auto_frames_the_largest_face_and_the_square_without_one() -> None:
    found = framing(Wanted(), SIZE, TWO, name="a.jpg")
    assert (found.frames[0].kind, found.numbers, found.note) == (AUTO, (1,), "")
    for faces, why in (([], "no face found"), (None, "no face finder")):
        none = framing(Wanted(), SIZE, faces, name="a.jpg")
        assert (none.frames, none.numbers) == ((Frame.square(SIZE),), ())
        assert why in none.note and "centred square" in none.note


def test_faces_are_counted_from_the_largest() -> None:
    assert framing(Wanted("aligned", 2), SIZE, TWO, name="a").frames == (Frame.aligned(TWO[1].landmarks),)
    found = framing(Wanted("upright", ALL), SIZE, TWO, name="a")
    assert found.frames == tuple(Frame.upright(each.landmarks) for each in TWO)
    assert found.numbers == (1, 2)


@pytest.mark.parametrize("wanted", [Wanted("aligned"), Wanted("auto", 1), Wanted("upright", ALL)])
@pytest.mark.parametrize("faces", [[], None])
def test_a_face_that_is_asked_for_must_be_there(wanted: Wanted, faces: list[Face] | None) -> None:
    with pytest.raises(PhotoError, match=r"a\.jpg") as caught:
        framing(wanted, SIZE, faces, name="a.jpg")
    check_sentence(caught.value)


def test_a_face_number_that_is_not_there_is_refused() -> None:
    with pytest.raises(PhotoError, match=r"no face 3 in `a\.jpg`, which shows 2 faces") as caught:
        framing(Wanted("auto", 3), SIZE, TWO, name="a.jpg")
    check_sentence(caught.value)


def test_landmarks_that_make_no_face_are_left_out_or_refused() -> None:
    mirrored = face(turned(0, 4, (300, 200))[[1, 0, 2, 4, 3]])
    faces = [mirrored, *TWO]
    assert framing(Wanted(), SIZE, faces, name="a.jpg").numbers == (2,)
    both = framing(Wanted("aligned", ALL), SIZE, faces, name="a.jpg")
    assert both.numbers == (2, 3) and "cannot be framed" in both.note
    for wanted, some in ((Wanted("auto", 1), faces), (Wanted(), [mirrored])):
        with pytest.raises(PhotoError, match=r"face 1 of `a\.jpg` cannot be framed: .* mirrored") as caught:
            framing(wanted, SIZE, some, name="a.jpg")
        check_sentence(caught.value)


def test_a_face_half_outside_is_framed_and_a_tiny_one_is_not() -> None:
    half = face(turned(0, 3, (0, 200)))
    assert framing(Wanted(), SIZE, [half], name="a.jpg").frames[0].x < 0
    with pytest.raises(PhotoError, match="too small") as caught:
        framing(Wanted(), SIZE, [face(turned(0, 0.1, (300, 200)))], name="a.jpg")
    check_sentence(caught.value)


def test_a_crowd_is_bounded_and_said() -> None:
    crowd = [face(FACE + np.array([number, 0])) for number in range(MAX_FACES)]
    found = framing(Wanted("aligned", ALL), SIZE, crowd, name="a.jpg")
    assert len(found.frames) == MAX_FACES and found.note == MORE_FACES
    assert framing(Wanted("aligned"), SIZE, crowd, name="a.jpg").note == ""
