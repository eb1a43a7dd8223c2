"""Tilted faces, which the finder sees less tilted than they are, are looked at again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from client.frames.face import LOOK_SIDE, LOOKS, Face, look_at, seen_again
from client.frames.frame import Frame
from tests.client.calling import result_of
from tests.client.calls import Call, Infer
from tests.client.fakes import FACE, FakeTransport
from tests.client.test_faces import picture

SIZE = (1000, 800)
# The face of the fakes in its own aligned square of LOOK_SIDE pixels.
IN_SQUARE = Frame.aligned(FACE).to_square(FACE) * LOOK_SIDE


def turned(points: np.ndarray, degrees: float, middle: tuple[float, float]) -> np.ndarray:
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (points - FACE.mean(axis=0)) @ rotation.T + middle


def face(degrees: float, middle: tuple[float, float] = (500, 400), scale: float = 4.0) -> Face:
    return Face(np.array([400.0, 300, 200, 200]), turned(FACE * scale, degrees, middle), 0.9)


def halved(angle: float, square: Frame) -> Face:
    """What a finder that sees half of a tilt sees in a square of a face that is tilted by ``angle``."""
    seen = face((angle - square.angle) / 2, scale=LOOK_SIDE / Frame.aligned(FACE).side)
    where = square.to_square(face(angle).landmarks).mean(axis=0) * LOOK_SIDE
    return replace(seen, landmarks=seen.landmarks - seen.landmarks.mean(axis=0) + where)


@pytest.mark.parametrize("angle", [-60.0, -25.0, -5.0, 5.0, 25.0, 60.0])
def test_a_few_looks_find_how_tilted_a_face_is(angle: float) -> None:
    found, square, looks = face(angle / 2), None, 0
    while (square := look_at(found, square, SIZE)) is not None:
        again = seen_again(found, square, [halved(angle, square)])
        assert again is not None
        found, looks = again, looks + 1
    assert 1 <= looks <= LOOKS
    assert Frame.aligned(found.landmarks).angle == pytest.approx(angle, abs=1.5)


def test_an_upright_face_is_looked_at_once() -> None:
    assert look_at(face(1.0), None, SIZE) is None


def test_no_square_outside_the_photo_is_looked_at() -> None:
    assert look_at(face(20, (5000, 400)), None, SIZE) is None
    assert look_at(replace(face(20), landmarks=np.zeros((5, 2))), None, SIZE) is None


@pytest.mark.parametrize("change", [lambda p: p + 0.3 * LOOK_SIDE, lambda p: 3 * p, lambda p: p * 0])
def test_another_face_is_not_taken_for_it(change) -> None:
    found = face(20)
    square = look_at(found, None, SIZE)
    assert square is not None
    assert seen_again(found, square, []) is None
    other = halved(20, square)
    assert seen_again(found, square, [replace(other, landmarks=change(other.landmarks))]) is None


def test_the_finder_is_asked_again_about_a_tilted_face(tmp_path, asynchronous) -> None:
    asked = []

    def fault(call: Call) -> object | None:
        if not (isinstance(call, Infer) and call.model == "faces"):
            return None
        image = call.inputs["image"]
        asked.append(image.shape)
        answer = {"boxes": np.zeros((64, 4)), "landmarks": np.zeros((64, 5, 2)), "scores": np.zeros(64)}
        answer["boxes"][0], answer["scores"][0] = (60, 40, 80, 80), 0.9
        first = len(image) != LOOK_SIDE
        answer["landmarks"][0] = turned(FACE, 10, (150, 80)) if first else IN_SQUARE
        return {name: values.astype(np.float32) for name, values in answer.items()}

    (found,) = result_of(
        "faces", picture(tmp_path / "a.png", ()), transport=FakeTransport(fault=fault), asynchronous=asynchronous
    )
    assert asked == [(160, 320, 3), (LOOK_SIDE, LOOK_SIDE, 3)]
    before = Frame.aligned(turned(FACE, 10, (150, 80)))
    after = Frame.aligned(found.landmarks)
    assert after.angle == pytest.approx(17, abs=0.1)
    np.testing.assert_allclose(after.middle, before.middle, atol=1)
    assert after.side == pytest.approx(before.side, rel=0.01)
