"""Coarse styles and where the face lies: checked, kept in the file, and sent to servers that move ``f``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load, save

from client import Inverter
from client.errors import DirectionError, InversionError
from client.files.direction import Direction
from client.files.face_styles import FaceStyles
from client.files.inversion import FACE_SCHEMA, REFINED_SCHEMA, SCHEMA, Inversion
from client.frames.choice import Wanted
from client.frames.frame import Frame, transform_between
from tests.client.fakes import COARSE, FACE, GENERATOR, MARK, FakeTransport, check_sentence
from tests.client.inversions import made
from tests.client.test_inversion_refined import refinement, target


def styles(**changes: np.ndarray) -> FaceStyles:
    turned = np.array([[0.0, -2.0, 0.25], [2.0, 0.0, -0.5]], np.float32)
    rng = np.random.default_rng(3)
    return FaceStyles(
        **{"w_coarse": rng.normal(size=COARSE).astype(np.float32), "transform": turned, "yaw": -0.3, **changes}
    )


def direction(layers: tuple[int, int] | None = None) -> Direction:
    vector = np.zeros(512, np.float32)
    vector[7] = 1
    return Direction(name="made", vector=vector, generator=GENERATOR, layers=layers, scale=2.0)


def test_it_is_kept_whole(tmp_path):
    made(face=styles(), target=target(), refinement=refinement()).save(tmp_path / "it")
    after = Inversion.load(tmp_path / "it")
    assert after.face is not None
    for name in ("w_coarse", "transform"):
        np.testing.assert_array_equal(getattr(after.face, name), getattr(styles(), name))
    assert after.face.yaw == np.float32(-0.3)
    assert after.refinement is not None
    assert after.target == target()


def test_the_schema_says_what_is_in_the_file(tmp_path):
    cases = ((SCHEMA, {}), (REFINED_SCHEMA, {"target": target()}), (FACE_SCHEMA, {"face": styles()}))
    for expected, changes in cases:
        data = made(**changes).encode()
        assert f'"schema":"{expected}"'.encode() in data
        (tmp_path / "it").write_bytes(data)
        assert (Inversion.load(tmp_path / "it").face is None) == (expected != FACE_SCHEMA)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("w_coarse", np.zeros(COARSE), "float64"),
        ("w_coarse", np.zeros((4, 500), np.float32), "4, 500"),
        ("w_coarse", np.zeros((0, 512), np.float32), "0 styles"),
        ("w_coarse", np.full(COARSE, np.nan, np.float32), "not finite"),
        ("transform", np.zeros((2, 3), np.float32), "not a similarity transform"),
        ("transform", np.array([[1, 0, 0], [0, -1, 0]], np.float32), "not a similarity transform"),
        ("transform", np.array([[1, 1, 0], [0, 1, 0]], np.float32), "not a similarity transform"),
        ("transform", np.full((2, 3), 1e30, np.float32), "not a similarity transform"),
        ("transform", np.zeros((3, 3), np.float32), "3, 3"),
    ],
)
def test_a_wrong_tensor_is_refused(name, value, says):
    with pytest.raises(InversionError, match=says) as problem:
        made(face=styles(**{name: value}))
    check_sentence(problem.value)
    assert f"'{name}'" in str(problem.value)


def stored(path: Path, **changes: np.ndarray | None) -> Path:
    tensors = load(made(face=styles()).encode()) | changes
    whole = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    path.write_bytes(save(whole, metadata=made(face=styles())._metadata()))
    return path


def test_a_file_with_half_of_it_is_refused(tmp_path):
    with pytest.raises(InversionError, match="transform"):
        Inversion.load(stored(tmp_path / "it", transform=None))


def test_a_file_of_before_does_not_say_how_far_the_face_is_turned(tmp_path):
    found = Inversion.load(stored(tmp_path / "it", yaw=None)).pose
    assert found is not None
    assert found.yaw == 0


@pytest.mark.parametrize("yaw", [np.zeros(()), np.zeros(2), np.full(1, np.nan), np.full(1, 1.5)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_wrong_yaw_is_refused(tmp_path, yaw, kind):
    yaw = yaw.astype(kind)
    with pytest.raises(InversionError, match="yaw") as problem:
        Inversion.load(stored(tmp_path / "it", yaw=yaw))
    check_sentence(problem.value)


@pytest.mark.parametrize("kind", ["aligned", "upright", "square"])
def test_it_is_known_how_far_a_face_is_turned(kind, tmp_path, monkeypatch):
    nose = np.zeros_like(FACE)
    nose[2, 0] = 3
    monkeypatch.setattr("tests.client.fakes.FACE", FACE + nose)
    image = Image.new("RGB", (120, 120), "grey")
    image.putpixel((60, 60), MARK)
    image.save(tmp_path / "it.png")
    with Inverter(transport=FakeTransport()) as inverter:
        (frame,) = inverter.frames(tmp_path / "it.png", Wanted(kind)).frames
        found = inverter.invert(tmp_path / "it.png", frame).inversion.pose
    assert found is not None
    assert found.yaw == pytest.approx(3 / 20)


def test_the_face_in_a_crop_is_where_edits_move_f(tmp_path):
    image = Image.new("RGB", (200, 120), "grey")
    for middle in ((40, 60), (150, 50)):
        image.putpixel(middle, MARK)
    image.save(tmp_path / "two.png")
    right = Frame.crop(90, 0, 110)
    transport = FakeTransport()
    with Inverter(transport=transport) as inverter:
        found = inverter.invert(tmp_path / "two.png", right).inversion.face
        # The larger face is the right one; the crop shows the left one alone.
        left = inverter.invert(tmp_path / "two.png", Frame.crop(0, 0, 100)).inversion.face
        none = inverter.invert(tmp_path / "two.png", Frame.crop(60, 0, 60)).inversion.face
    assert found is not None
    assert left is not None
    assert none is None
    aligned = Frame.aligned(np.array([150.5, 50.5]) + FACE)
    np.testing.assert_allclose(found.transform, transform_between(right, aligned))
    sent = [call for call in transport.inferences if call.model == "ffhq_invert"]
    np.testing.assert_array_equal(sent[0].inputs["transform"][0], found.transform)
    np.testing.assert_array_equal(sent[2].inputs["transform"][0], np.eye(2, 3))


def test_the_server_is_sent_with_what_to_move_f():
    transport = FakeTransport()
    inversion = made(face=styles(), generator=GENERATOR)
    with Inverter(transport=transport) as inverter:
        inverter.edit(inversion, direction(), [1.0])
    (sent,) = transport.inferences
    inputs = dict(sent.inputs)
    for name in ("f", "w_m_plus"):
        np.testing.assert_array_equal(inputs[name], getattr(inversion, name))
    for name in ("w_coarse", "transform"):
        np.testing.assert_array_equal(inputs[name], getattr(styles(), name))
    assert inputs["direction"].shape == (16, 512)
    assert (inputs["direction"][:, 7] == 2).all()


def test_without_one_the_edit_leaves_f():
    transport = FakeTransport()
    inversion = made(generator=GENERATOR)
    with Inverter(transport=transport) as inverter:
        inverter.edit(inversion, direction(), [1.0])
        with pytest.raises(DirectionError, match="before the cut"):
            inverter.edit(inversion, direction((0, 3)), [1.0])
    inputs = dict(transport.inferences[0].inputs)
    np.testing.assert_array_equal(inputs["f"], inversion.f)
    np.testing.assert_array_equal(inputs["transform"], np.eye(2, 3))
    assert not inputs["direction"][:4].any()
    assert (inputs["direction"][4:, 7] == 2).all()


def test_directions_of_the_coarse_styles_alone_edit_where_f_moves():
    transport = FakeTransport()
    with Inverter(transport=transport) as inverter:
        inverter.edit(made(face=styles(), generator=GENERATOR), direction((0, 3)), [1.0])
    inputs = dict(transport.inferences[0].inputs)
    assert (inputs["direction"][:4, 7] == 2).all()
    assert not inputs["direction"][4:].any()


def test_a_server_that_moves_styles_alone_is_sent_as_before():
    transport = FakeTransport(cuts=(16, 8))
    small = np.zeros((512, 8, 8), np.float32)
    inversion = made(f=small, f_o=small, w_m_plus=np.zeros((14, 512), np.float32), cut=8, generator=GENERATOR)
    with Inverter(transport=transport) as inverter:
        inverter.edit(inversion, direction(), [1.0])
    inputs = dict(transport.inferences[0].inputs)
    assert set(inputs) == {"f", "w_m_plus", "direction", "strengths"}
    assert inputs["direction"].shape == (14, 512)


def test_an_inversion_of_an_aligned_face_has_them(photo):
    eyes_and_mouth = [[30, 30], [60, 32], [45, 45], [33, 60], [57, 61]]
    with Inverter(transport=FakeTransport(cuts=(16, 4))) as inverter:
        found = inverter.invert(photo, Frame.aligned(eyes_and_mouth)).inversion
        square = inverter.invert(photo).inversion
        other = inverter.invert(photo, method="im2s").inversion
    assert found.face is not None
    np.testing.assert_array_equal(found.face.transform, np.eye(2, 3))
    assert (found.face.w_coarse == 0.125).all()
    # Where no face is known, a moved f would be wrong.
    assert square.face is None
    assert other.face is None


def test_between_frames():
    square = Frame.crop(10, 20, 100)
    np.testing.assert_array_equal(transform_between(square, square), np.eye(2, 3, dtype=np.float32))
    # The face is half as large as the square, and stands in its upper left quarter.
    np.testing.assert_allclose(transform_between(square, Frame.crop(10, 20, 50)), [[2, 0, 1], [0, 2, 1]], atol=1e-6)
    turned = replace(Frame.aligned([[40, 40], [60, 40], [50, 50], [43, 60], [57, 60]]), kind="aligned")
    back, there = transform_between(turned, square), transform_between(square, turned)
    product = there[:, :2] @ back[:, :2]
    np.testing.assert_allclose(product, np.eye(2), atol=1e-5)
