"""Edits where the generator cannot draw what the photo shows."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from client.change.paste import Paste
from client.change.together import Together
from client.commands.whole import Shown
from client.files import direction
from client.files.photo import Photo
from client.frames.frame import Frame
from client.frames.pose import Pose

SIDE = 256
FRAME = Frame("aligned", 0.0, 0.0, float(SIDE))
EYES, MOUTH = (slice(90, 130), slice(60, 196)), (slice(180, 210), slice(90, 166))


def face(*, shift: int | None, mouth: int) -> np.ndarray:
    """A face with texture, uint8 [SIDE, SIDE, 3]: with streaks over the eyes, moved by ``shift``, or without."""
    rng = np.random.default_rng(1)
    found = np.full((SIDE, SIDE), 150.0) + rng.normal(0, 20, (SIDE, SIDE))
    found[MOUTH] = mouth + rng.normal(0, 20, found[MOUTH].shape)
    if shift is not None:
        columns = np.arange(EYES[1].start, EYES[1].stop)
        found[EYES] = np.where((columns + shift) // 3 % 2, 40.0, 220.0)
    return np.repeat(found.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(Image.fromarray(pixels), "photo.png", "")


def changed(photo: np.ndarray, plain: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """How much an edit changes a photo: float [SIDE, SIDE]."""
    paste = Paste(photo_of(photo), FRAME, plain)
    return np.abs(np.asarray(paste(edited)).astype(float) - photo).mean(axis=2)


def test_streaks_that_only_the_render_has_change_nothing_around_them() -> None:
    found = changed(face(shift=None, mouth=90), face(shift=0, mouth=90), face(shift=2, mouth=200))
    assert found[EYES].max() == 0
    assert found[185:205, 95:160].mean() > 60


def test_streaks_that_the_photo_has_change() -> None:
    found = changed(face(shift=0, mouth=90), face(shift=0, mouth=90), face(shift=3, mouth=90))
    assert found[100:120, 80:180].mean() > 60


@pytest.mark.parametrize("radius", [2, 6])
def test_a_photo_that_is_less_sharp_changes_everywhere(radius: int) -> None:
    sharp = face(shift=None, mouth=90)
    photo = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(radius)))
    found = changed(photo, sharp, face(shift=None, mouth=200))
    assert found[185:205, 95:160].mean() > 60


def test_a_user_is_told_once_how_much_stays(capsys: pytest.CaptureFixture[str]) -> None:
    photo, plain, edited = photo_of(face(shift=None, mouth=90)), face(shift=0, mouth=90), face(shift=2, mouth=200)
    note = Paste(photo, FRAME, plain).note
    assert int(note.partition("%")[0]) in range(25, 70)
    shown = Shown((photo, FRAME), plain)
    assert len(list(shown(direction.load("ffhq", "yaw"), [2], [edited]))) == 1
    assert not capsys.readouterr().err
    for _ in range(2):
        assert len(list(shown(direction.load("ffhq", "age"), [2, 3], [edited, edited]))) == 2
    assert capsys.readouterr().err == f"warning: `photo.png`: {note}\n"


def test_of_several_faces_it_is_told_which() -> None:
    photo, plain = photo_of(face(shift=None, mouth=90)), face(shift=0, mouth=90)
    whole = Together(photo, [(FRAME, np.asarray(photo.image), None), (FRAME, plain, None)])
    for index in range(2):
        whole.add(index, [plain], [photo.canvas()], [0.1])
        assert whole.notes == []
    for index in range(2):
        whole.add(index, [plain], [photo.canvas()], [0.0])
    assert whole.notes == [f"face 2 of 2: {Paste(photo, FRAME, plain).note}"]


def test_mostly_there_is_nothing_to_tell() -> None:
    photo = photo_of(face(shift=None, mouth=90))
    assert Paste(photo, FRAME, face(shift=None, mouth=110)).note == ""
    where = np.array([[2, 0, 50], [0, 2, 50]], np.float32)
    assert Paste(photo, Frame.square((SIDE, SIDE)), face(shift=0, mouth=90), pose=Pose(where)).note == ""
