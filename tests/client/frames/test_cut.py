from __future__ import annotations

import numpy as np
import pytest
import skimage
from PIL import Image
from scipy import ndimage

from client.frames.cut import cut
from client.frames.frame import Frame
from tests.client.frames.test_frame import FACE, turned


def ffhq(image: Image.Image, points: np.ndarray, size: int) -> np.ndarray:
    """FFHQ's published script (download_ffhq.py, recreate_aligned_images), from the eyes and the mouth on."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth - eyes
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eyes + eye_to_mouth * 0.1
    quad = np.stack([c - x - y, c - x + y, c + x + y, c + x - y])
    qsize = np.hypot(*x) * 2
    border = max(round(qsize * 0.1), 3)
    low, high = np.floor(quad.min(axis=0)).astype(int), np.ceil(quad.max(axis=0)).astype(int)
    first, last = np.maximum(low - border, 0), np.minimum(high + border, image.size)
    local = np.asarray(image.crop((*first.tolist(), *last.tolist())), np.float32)
    quad -= first
    low, high = np.floor(quad.min(axis=0)).astype(int), np.ceil(quad.max(axis=0)).astype(int)
    shape = np.array(local.shape[1::-1])
    pad = np.array([*np.maximum(-low + border, 0), *np.maximum(high - shape + border, 0)])
    if pad.max() > border - 4:
        pad = np.maximum(pad, round(qsize * 0.3))
        local = np.pad(local, ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
        h, w, _ = local.shape
        v, u, _ = np.ogrid[:h, :w, :1]
        mask = np.maximum(
            1.0 - np.minimum(u / pad[0], (w - 1 - u) / pad[2]), 1.0 - np.minimum(v / pad[1], (h - 1 - v) / pad[3])
        )
        blur = qsize * 0.02
        local += (ndimage.gaussian_filter(local, [blur, blur, 0]) - local) * np.clip(mask * 3.0 + 1.0, 0.0, 1.0)
        local += (np.median(local, axis=(0, 1)) - local) * np.clip(mask, 0.0, 1.0)
        quad += pad[:2]
    picture = Image.fromarray(np.uint8(np.clip(np.rint(local), 0, 255)))
    big = picture.transform((4 * size, 4 * size), Image.Transform.QUAD, quad.flatten(), Image.Resampling.BILINEAR)
    return np.asarray(big.resize((size, size), Image.Resampling.LANCZOS))


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    found = ndimage.gaussian_filter(noise, [6, 6, 0])
    return ((found - found.min()) / np.ptp(found) * 255).astype(np.uint8)


def test_a_square_on_whole_pixels_is_cut_by_pillows_lanczos() -> None:
    image = Image.fromarray(smooth(90, 130))
    expected = image.resize((100, 100), Image.Resampling.LANCZOS, box=(30, 7, 94, 71))
    np.testing.assert_array_equal(cut(image, Frame.crop(30, 7, 64), 100), expected)
    np.testing.assert_array_equal(cut(image, Frame.crop(30, 7, 64), 64), np.asarray(image)[7:71, 30:94])
    np.testing.assert_array_equal(cut(image, Frame.square(image.size), 90), np.asarray(image)[:, 20:110])


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_quarter_turn_moves_pixels_and_changes_none(degrees: int) -> None:
    pixels = smooth(80, 80)
    start = {90: (80, 0), 180: (80, 80), -90: (0, 80)}[degrees]
    along = {90: (0, 80), 180: (-80, 0), -90: (0, -80)}[degrees]
    found = cut(Image.fromarray(pixels), Frame("aligned", *start, *along), 80)
    np.testing.assert_array_equal(found, np.rot90(pixels, degrees // 90))


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (30, 1.0), (-75, 1.7), (180, 0.8)])
def test_a_face_is_aligned_wherever_it_was(degrees: float, scale: float) -> None:
    """Dots at the landmarks of a rotated and scaled face end up where those of the upright face do."""
    face = turned(degrees, scale, (150, 140))
    image = np.full((300, 320, 3), 60, np.uint8)
    y, x = np.mgrid[:300, :320] + 0.5
    for point in face[:2]:
        image[np.hypot(x - point[0], y - point[1]) < 4 * scale] = 255
    found = cut(Image.fromarray(image), Frame.aligned(face), 160)
    # The square has 80 of the upright face's pixels, from (10, 12) on.
    y, x = np.mgrid[:160, :160] + 0.5
    for left, right, place in ((0, 80, (40 - 10) * 2), (80, 160, (60 - 10) * 2)):
        weight = found[:, left:right, 0].astype(float) - 60
        assert (weight * x[:, left:right]).sum() / weight.sum() == pytest.approx(place, abs=0.5)
        assert (weight * y[:, left:right]).sum() / weight.sum() == pytest.approx((50 - 12) * 2, abs=0.5)


@pytest.mark.parametrize(
    ("degrees", "scale", "middle"),
    [(0, 3, (256, 256)), (25, 2, (250, 200)), (-30, 3, (30, 200)), (8, 4, (480, 500)), (3, 1, (512, 512))],
)
def test_a_face_is_cut_as_by_ffhqs_script(degrees: float, scale: float, middle: tuple[float, float]) -> None:
    """Inside the photo and outside, where it is padded, blurred and faded."""
    image, face = Image.fromarray(skimage.data.astronaut()), turned(degrees, scale, middle)
    found, script = cut(image, Frame.aligned(face), 128), ffhq(image, face, 128)
    difference = np.abs(found.astype(float) - script)
    assert difference.mean() < 2.5 and np.percentile(difference, 99) < 25


def test_what_is_inside_the_photo_stays_sharp_away_from_the_edge() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8)
    found = cut(Image.fromarray(pixels), Frame.aligned(FACE), 80)
    # From (10, 12) on, pixel for pixel; the blur begins a tenth of the side before the photo's edge.
    np.testing.assert_array_equal(found[:, :61], pixels[12:92, 10:71])
    assert (
        np.abs(np.diff(found[:, 72:].astype(int), axis=0)).mean()
        < np.abs(np.diff(pixels.astype(int), axis=0)).mean() / 4
    )


@pytest.mark.parametrize("scale", [0.7, 3.1, 11.0])
def test_shrinking_does_not_alias(scale: float) -> None:
    """A fine pattern becomes grey, rotated or not; sampled at points it would become stripes."""
    y, x = np.mgrid[:1100, :1100]
    pixels = np.where((x + y) % 2, 255, 0).astype(np.uint8)[..., None].repeat(3, 2)
    face = turned(17, scale, (550, 550))
    found = cut(Image.fromarray(pixels), Frame.aligned(face), 24)
    assert np.abs(found.astype(int) - 127).max() < 12


@pytest.mark.parametrize("size", [(16, 3000), (3000, 16), (16, 16)])
@pytest.mark.parametrize("side", [64, 256])
def test_a_narrow_photo_is_padded(size: tuple[int, int], side: int) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    middle = (size[0] / 2, size[1] / 2)
    found = cut(image, Frame.aligned(turned(20, 3, middle)), side)
    np.testing.assert_array_equal(found, np.broadcast_to(np.uint8([10, 200, 30]), (side, side, 3)))
