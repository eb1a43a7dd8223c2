"""Edits in which the head moves: the photo's own pixels move with it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from client.change.blend import Change
from client.change.paste import Paste
from client.files.photo import Photo
from client.frames.frame import Frame
from client.frames.pose import Pose
from tests.client.change.test_paste import picture

SIDE = 256
MOVED = 8  # pixels of the square


def pair(times: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo of ``times`` the square's side with grain that only it has, and the same moved to the left."""
    rng = np.random.default_rng(2)
    side, far = times * SIDE, times * MOVED
    large = picture(side + far, side, seed=5).astype(float) * 0.6 + rng.normal(50, 12, (side, side + far, 1))
    found = large.clip(0, 255).astype(np.uint8)
    return found[:, :side], found[:, far:]


@pytest.mark.parametrize("times", [1, 3])
def test_the_photos_own_pixels_move_with_the_head(times: int) -> None:
    photo, moved = pair(times)
    plain, edited = (np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BOX)) for x in (photo, moved))
    frame = Frame("square", 0.0, 0.0, float(times * SIDE))
    found = np.asarray(Paste(Photo(Image.fromarray(photo), "photo.png", ""), frame, plain)(edited)).astype(float)
    inner = np.s_[60 * times : 190 * times, 60 * times : 190 * times]
    still, gone = (np.abs(found - x)[inner].mean() for x in (photo, moved))
    assert gone < 0.5 * still, (gone, still)


def test_what_a_head_uncovers_is_not_the_renders() -> None:
    """Beside a head that moves, the edited render has an ear where the photo has a wall."""
    photo, moved = pair(1)
    edited = moved.copy()
    edited[30:70, 230:252] = (250, 20, 20)
    transform = np.eye(2, 3, dtype=np.float32)
    frame, taken = Frame("square", 0.0, 0.0, float(SIDE)), Photo(Image.fromarray(photo), "photo.png", "")
    known, unknown = (np.asarray(Paste(taken, frame, photo, pose=x)(edited)) for x in (Pose(transform), None))
    redness = [float((x[34:66, 240:250, 0].astype(int) - x[34:66, 240:250, 1]).mean()) for x in (known, unknown)]
    assert redness[0] < 0.3 * redness[1], redness


def test_what_lies_beyond_the_frame_does_not_move_in() -> None:
    """A flat photo has no detail that could move, inside the frame or beyond it."""
    flat = Photo(Image.fromarray(np.full((900, 900, 3), 90, np.uint8)), "photo.png", "")
    paste = Paste(flat, Frame("crop", 200, 200, 500), np.full((SIDE, SIDE, 3), 90, np.uint8))
    nothing, motion = np.zeros((SIDE, SIDE), np.float32), np.full((SIDE, SIDE, 2), 30, np.float32)
    change = Change(np.zeros((SIDE, SIDE, 3), np.float32), nothing + 1, nothing, motion)
    assert np.abs(paste._detail(change, (600, 600, 700, 700))).max() < 1
