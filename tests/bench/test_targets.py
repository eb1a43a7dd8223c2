"""Targets: what each variant does to the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.targets import SIDE, VARIANTS, Image8, Move, moved, photos, targets


def noise(side: int) -> Image8:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)


@pytest.mark.parametrize("side", [64, 65])
def test_plain_leaves_every_pixel(side: int) -> None:
    np.testing.assert_array_equal(moved(noise(side), VARIANTS["plain"]), noise(side))


@pytest.mark.parametrize("degrees", [20, -20])
def test_a_rotation_is_that_of_pillow(degrees: float) -> None:
    padded = Image.fromarray(np.pad(noise(64), ((32, 32), (32, 32), (0, 0)), mode="reflect"))
    turned = padded.rotate(degrees, Image.Resampling.BICUBIC).crop((32, 32, 96, 96))
    np.testing.assert_array_equal(moved(noise(64), Move(degrees=degrees)), turned)


def test_rotation_turns_anticlockwise_and_reflects_the_border() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[28:36, 48:56] = 255  # to the right of the middle
    turned = moved(image, Move(degrees=90))
    assert turned[8:16, 28:36].min() > 250
    assert turned.sum() == pytest.approx(image.sum(), rel=0.02)


@pytest.mark.parametrize(
    ("variant", "place", "area"),
    [
        # A square of 8 px is 20 px to the right of the middle and 10 above it; x is to the right, y down.
        ("plain", (20, -10), 64),
        ("rotated+20", (20 * 0.9397 - 10 * 0.3420, -10 * 0.9397 - 20 * 0.3420), 64),
        ("rotated-20", (20 * 0.9397 + 10 * 0.3420, -10 * 0.9397 + 20 * 0.3420), 64),
        ("shifted", (20 + 12, -10 + 12), 64),
        ("smaller", (20 * 0.8, -10 * 0.8), 64 * 0.64),
        ("larger", (20 * 1.2, -10 * 1.2), 64 * 1.44),
    ],
)
def test_every_variant_puts_things_where_it_says(variant: str, place: tuple[float, float], area: float) -> None:
    # On grey, where no overshoot is clipped.
    image = np.full((100, 100, 3), 100, np.uint8)
    image[36:44, 66:74] = 150
    found = moved(image, VARIANTS[variant])[:, :, 0] / 50 - 2
    y, x = np.mgrid[:100, :100] - 49.5
    assert found.sum() == pytest.approx(area, rel=0.05)
    assert (found * x).sum() / found.sum() == pytest.approx(place[0], abs=0.1)
    assert (found * y).sum() / found.sum() == pytest.approx(place[1], abs=0.1)


def test_the_border_is_reflected() -> None:
    image = noise(100)
    shifted = moved(image, VARIANTS["shifted"])
    np.testing.assert_array_equal(shifted[12:, 12:], image[:-12, :-12])
    np.testing.assert_array_equal(shifted[12:, :12], image[:-12, 12:0:-1])
    even = np.full((64, 64, 3), 77, np.uint8)
    for move in VARIANTS.values():
        np.testing.assert_array_equal(moved(even, move), even)


def test_targets_are_every_picture_in_every_variant() -> None:
    image = noise(16)
    found = list(targets([("one", "photos", image), ("two", "samples", image)], ["plain", "shifted"]))
    names = [(t.name, t.group, t.variant) for t in found]
    assert names[:2] == [("one", "photos", "plain"), ("one", "photos", "shifted")]
    assert names[2:] == [("two", "samples", "plain"), ("two", "samples", "shifted")]
    np.testing.assert_array_equal(found[2].image, image)
    np.testing.assert_array_equal(found[3].image, moved(image, VARIANTS["shifted"]))


def test_photos_are_centre_squares(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), (9, 9, 9)).save(tmp_path / "wide.png")
    (tmp_path / "note.txt").write_text("no photo")
    ((name, image),) = photos(tmp_path)
    assert (name, image.shape) == ("wide", (SIDE, SIDE, 3))
    assert list(photos(tmp_path / "absent")) == []
