"""The code whose change is laid over a photo: of the aligned face, and drawn to what the generator makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from client import Inversion, Inverter, Photo
from client.change.source import drawn, frame_of, styles_of
from client.errors import GeneratorMismatch
from client.files.faithful import Faithful
from client.frames.frame import Frame, transform_between
from tests.client import fakes
from tests.client.fakes import FACE, GENERATOR, MARK, F, FakeTransport
from tests.client.inversions import made
from tests.client.test_face_styles import direction, styles

SIZE = (160, 120)
MIDDLE = (70, 50)


@pytest.fixture
def photo() -> Photo:
    """A photo with a face, as the pretended server finds it."""
    pixels = np.random.default_rng(5).integers(0, 200, (SIZE[1], SIZE[0], 3), np.uint8)
    pixels[MIDDLE[1], MIDDLE[0]] = MARK
    return Photo(Image.fromarray(pixels), "me.png", "00ff")


def aligned() -> Frame:
    """The square of its face."""
    return Frame.aligned(FACE + np.add(MIDDLE, 0.5))


def placed(frame: Frame, to: Frame) -> Inversion:
    """An inversion of ``frame``, whose face would fill ``to``."""
    face = styles(transform=transform_between(frame, to))
    return made(frame=frame, photo_size=SIZE, face=face, faithful=Faithful(f=made().f, w_m_plus=made().w_m_plus))


@pytest.mark.parametrize("frame", [Frame.square(SIZE), Frame.crop(20, 10, 90), Frame.upright(FACE + np.array(MIDDLE))])
@pytest.mark.parametrize("turn", [0.0, -25.0])
def test_it_goes_where_the_face_is_aligned(frame: Frame, turn: float) -> None:
    there = aligned().turned(turn)
    found = frame_of(placed(frame, there))
    assert found.kind == "aligned"
    np.testing.assert_allclose(found.matrix, there.matrix, rtol=1e-4, atol=1e-4)
    assert frame_of(placed(there, there)) == there


def test_a_face_of_which_the_photo_shows_too_little_stays_in_its_square() -> None:
    frame = Frame.square(SIZE)
    for other in (Frame("aligned", 60, 40, 10), Frame("aligned", -300, 40, 100)):
        assert frame_of(placed(frame, other)) == frame
    assert frame_of(made()) == made().frame


def test_it_is_drawn_to_what_the_generator_makes_of_the_coarse_styles() -> None:
    face = styles()
    inversion = made(face=face, faithful=Faithful(f=made().f, w_m_plus=made().w_m_plus))
    coarse, fine = styles_of(inversion, face)
    mean = face.w_coarse.mean(axis=0)
    np.testing.assert_allclose(coarse, (face.w_coarse + mean) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fine, (inversion.w_m_plus + mean) / 2, rtol=1e-5, atol=1e-6)
    there = (1.3 * inversion.f).astype(np.float32)
    found = drawn(inversion, face, there)
    np.testing.assert_allclose(found.f, 0.4 * inversion.f + 0.6 * there, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.w_m_plus, 0.4 * inversion.w_m_plus + 0.6 * fine, rtol=1e-5, atol=1e-6)
    assert found.faithful is None and found.face is not None
    np.testing.assert_array_equal(found.face.w_coarse, coarse)


@pytest.mark.parametrize(("away", "share"), [(0.7, 0.6), (0.75, 0.8), (0.8, 1.0)])
def test_a_code_far_from_the_generators_is_drawn_farther(away: float, share: float) -> None:
    rng = np.random.default_rng(7)
    there = rng.normal(size=F).astype(np.float32)
    # As long as the generator's everywhere, so that the distance is the same in the middle of the face.
    beside = there * rng.choice([-1, 1], size=F)
    face, own = styles(), (there + away * beside).astype(np.float32)
    found = drawn(made(face=face, faithful=Faithful(f=own, w_m_plus=made().w_m_plus), f=own), face, there)
    np.testing.assert_allclose(found.f, own + share * (there - own), atol=1e-4)


def test_a_code_of_its_own_stays(photo: Photo) -> None:
    transport = FakeTransport()
    with Inverter(transport=transport) as inverter:
        for inversion in (made(face=styles()), made(), made(faithful=placed(aligned(), aligned()).faithful)):
            assert inverter.for_change(inversion, photo) is inversion
    assert not transport.inferences


@pytest.mark.parametrize("frame", [Frame.square(SIZE), None])
def test_the_change_is_of_the_aligned_face(frame: Frame | None, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.add_faithful(monkeypatch)
    transport = FakeTransport()
    with Inverter(transport=transport) as inverter:
        inversion = inverter.invert(photo, frame or aligned()).inversion
        asked = len([call for call in transport.inferences if call.model == "ffhq_invert"])
        found = inverter.for_change(inversion, photo)
        np.testing.assert_allclose(found.frame.matrix, aligned().matrix, rtol=1e-4, atol=1e-4)
        again = len([call for call in transport.inferences if call.model == "ffhq_invert"]) - asked
        assert again == (frame is not None)
        pictures = inverter.edit(inversion, direction(), [1.0], photo)
    assert pictures.shape == (1, SIZE[1], SIZE[0], 3)
    (edit,) = (call for call in transport.inferences if call.model == "ffhq_edit")
    np.testing.assert_array_equal(edit.inputs["f"], found.f)
    np.testing.assert_array_equal(edit.inputs["transform"], np.eye(2, 3, dtype=np.float32))


def test_another_generator_is_refused(photo: Photo) -> None:
    inversion = replace(placed(aligned(), aligned()), generator=GENERATOR[::-1])
    with Inverter(transport=FakeTransport()) as inverter, pytest.raises(GeneratorMismatch):
        inverter.edit(inversion, direction(), [1.0], photo)
