"""The likeness of eyes, on drawn ones."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from judges.eyes import eye_likeness
from judges.faces import Face, Image8

EYES = ((90.0, 100.0), (150.0, 100.0))
FACE = Face(
    np.array([60, 50, 120, 150], np.float32), np.array([*EYES, (120, 130), (95, 160), (145, 160)], np.float32), 1.0
)


def face(*, closed: int | None = None, by: float = 0.0, light: int = 0) -> Image8:
    """A face with one eye ``closed``, or both moved down ``by`` pixels, under brighter light."""
    image = Image.new("RGB", (256, 256), (180 + light, 150 + light, 130 + light))
    draw = ImageDraw.Draw(image)
    for number, (x, y) in enumerate(EYES):
        if number != closed:
            draw.ellipse((x - 12, y + by - 6, x + 12, y + by + 6), fill=(235, 235, 235))
            draw.ellipse((x - 5, y + by - 5, x + 5, y + by + 5), fill=(40, 30, 20))
        else:
            draw.line((x - 12, y, x + 12, y), fill=(90, 60, 50), width=2)
    return np.asarray(image)


def test_equal_eyes_are_alike_under_any_light() -> None:
    assert eye_likeness(face(), face(), FACE) > 0.999
    assert eye_likeness(face(), face(light=15), FACE) > 0.95


def test_one_closed_or_displaced_eye_is_enough() -> None:
    for closed in (0, 1):
        assert eye_likeness(face(), face(closed=closed), FACE) < 0.6
    assert eye_likeness(face(), face(by=10), FACE) < 0.6


def test_an_empty_picture_has_no_eyes() -> None:
    assert eye_likeness(face(), np.zeros_like(face()), FACE) == 0


def test_a_face_at_the_border_is_judged_by_what_is_there() -> None:
    moved = Face(FACE.box - 100, FACE.landmarks - np.float32(92), 1.0)
    assert np.isfinite(eye_likeness(face(), face(closed=0), moved))
