from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.change.paste import Paste, paste
from client.errors import PhotoError
from client.files.colour import adobe_rgb
from client.files.photo import Photo
from client.frames.frame import Frame

ROOT = Path(__file__).parents[3]
SIDE = 256
TILTED = Frame("aligned", 150.3, 60.7, 160.0, 90.0)
# Decodes a photo, edits it in its own colours, and then as one without a profile; prints the peaks of its memory.
MEMORY = """
import json
import re
import resource
from dataclasses import replace
from pathlib import Path
import numpy as np
from client.atomic import Draft
from client.commands.report import Edited, add_edits
from client.commands.whole import Shown
from client.files import photo as photos
from client.files.direction import Direction
from client.files.photo import Photo
from client.frames.frame import Frame

def peak():
    # getrusage would count the test run, too: a process inherits the peak of the one that started it.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

def edit(photo, name):
    plain = photo.pixels(Frame("crop", 0, 0, 1024), 1024)
    # One changes all of a large face; the other is quick, and made while nothing of the first may be left.
    little = plain.copy()
    little[500:600, 500:600] = 255
    direction = Direction(name="it", vector=np.eye(1, 512, dtype=np.float32)[0], generator="0" * 16)
    place = photo, Frame("aligned", 1000.0, 3000.0, 5000.0, -1200.0)
    images = Shown(place, plain)(direction, [-2.0, 2.0], [255 - plain, little])
    with Draft() as draft:
        add_edits(draft, [], Path(name), [Edited(direction, [-2.0, 2.0], images)], "jpeg")
        draft.publish()

photo, peaks = Photo.open("large.jpg"), {}
photos._decoding.close()
peaks["asking"], peaks["decoding"] = peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
assert photo.own is not None
edit(photo, "profile")
peaks["profile"] = peak()
photo = replace(photo, own=None)
edit(photo, "plain")
peaks["plain"] = peak()
print(json.dumps(peaks))
"""


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Soft noise, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(60, 200, (height // 12 + 2, width // 12 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(Image.fromarray(pixels), "photo.png", "")


def render_of(photo: Photo, frame: Frame) -> np.ndarray:
    return photo.pixels(frame, SIDE)


@pytest.mark.parametrize("frame", [TILTED, Frame.square((500, 400)), Frame("upright", 300.5, -30.2, 250.0)])
def test_no_change_leaves_every_pixel(frame: Frame) -> None:
    photo = photo_of(picture(500, 400))
    plain = picture(SIDE, SIDE, seed=1)
    assert np.array_equal(paste(photo, frame, plain, plain), photo.image)


@pytest.mark.parametrize("frame", [TILTED, Frame("crop", 100, 80, 200), Frame("aligned", -40.5, 60.2, 200.0, 30.0)])
def test_pixels_outside_the_frame_are_the_photos_byte_for_byte(frame: Frame) -> None:
    photo = photo_of(picture(500, 400))
    result = np.asarray(paste(photo, frame, render_of(photo, frame), picture(SIDE, SIDE, seed=2)))
    before = np.asarray(photo.image)
    rows, columns = np.mgrid[:400, :500] + 0.5
    places = frame.to_square(np.stack([columns.ravel(), rows.ravel()], axis=1)).reshape(400, 500, 2)
    inside = ((places > 0) & (places < 1)).all(axis=-1)
    assert np.array_equal(result[~inside], before[~inside])
    changed = (result != before).any(axis=-1)
    assert changed[inside].mean() > 0.5


def test_a_change_of_colour_arrives_and_makes_no_step_at_the_seam() -> None:
    photo = photo_of(np.full((400, 500, 3), 120, np.uint8))
    plain = np.full((SIDE, SIDE, 3), 90, np.uint8)
    result = np.asarray(paste(photo, Frame("crop", 100, 80, 240), plain, plain + np.uint8(40)), int)
    assert (result[200, 220] == 160).all()
    assert (result[80, 100:340] == 120).all()
    assert np.abs(np.diff(result, axis=1)).max() <= 4
    assert np.abs(np.diff(result, axis=0)).max() <= 4


def test_a_change_goes_to_the_photos_edge_where_the_frame_does() -> None:
    photo = photo_of(np.full((400, 400, 3), 120, np.uint8))
    plain = np.full((SIDE, SIDE, 3), 90, np.uint8)
    result = np.asarray(paste(photo, Frame.square((400, 400)), plain, plain + np.uint8(40)), int)
    assert np.abs(result - 160).max() <= 1


def test_a_mark_that_the_render_shows_beside_the_photos_is_removed_once() -> None:
    def marked(x: int, *, shown: bool = True) -> np.ndarray:
        image = picture(SIDE, SIDE, seed=3).copy()
        if shown:
            image[96:160, x : x + 10] = 20
        return image

    clean = marked(120, shown=False)
    photo = photo_of(marked(120))
    plain, edited = marked(124), clean
    frame = Frame.square((SIDE, SIDE))
    mine = np.asarray(paste(photo, frame, plain, edited), float)
    plain_sum = (np.asarray(photo.image, float) + edited - plain).clip(0, 255)
    box = np.s_[90:166, 110:145]
    errors = [np.abs(image - clean)[box].mean() for image in (mine, plain_sum)]
    assert errors[0] < errors[1] / 2


def test_a_large_face_keeps_its_own_detail_where_nothing_changes() -> None:
    photo = photo_of(np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8))
    frame = Frame("crop", 50, 50, 800)
    plain = render_of(photo, frame)
    edited = plain.copy()
    edited[100:150, 100:150] = 255
    result = np.asarray(paste(photo, frame, plain, edited))
    assert np.array_equal(result[700:, 700:], np.asarray(photo.image)[700:, 700:])


@pytest.mark.parametrize("tile", [37, 128])
def test_a_change_does_not_depend_on_the_tiles_it_is_made_in(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = photo_of(picture(600, 500))
    frame = Frame("aligned", 90.3, 150.7, 330.0, -140.0)
    plain = render_of(photo, frame)
    edited = plain.copy()
    edited[60:120, 40:200] = picture(160, 60, seed=4)
    whole = np.asarray(paste(photo, frame, plain, edited), int)
    monkeypatch.setattr("client.change.paste._TILE", tile)
    # Places are rounded anew for each tile.
    assert np.abs(np.asarray(paste(photo, frame, plain, edited), int) - whole).max() <= 1
    assert np.abs(whole - np.asarray(photo.image)).max() > 50


def test_two_faces_are_changed_one_after_the_other() -> None:
    photo = photo_of(np.full((300, 700, 3), 120, np.uint8))
    plain = np.full((SIDE, SIDE, 3), 90, np.uint8)
    both = photo.image.copy()
    for x in (20, 400):
        assert Paste(photo, Frame("crop", x, 20, 250), plain)(plain + np.uint8(40), onto=both) is both
    result = np.asarray(both)
    assert (result[150, 150] == 160).all()
    assert (result[150, 520] == 160).all()
    assert (result[150, 350] == 120).all()
    assert (np.asarray(photo.image) == 120).all()


@pytest.mark.parametrize("other", [Frame("crop", 180, 40, 250), Frame("aligned", 190.0, 60.0, 200.0, 60.0)])
def test_two_faces_that_touch_are_changed_once_and_show_no_seam(other: Frame) -> None:
    photo = photo_of(np.full((320, 500, 3), 120, np.uint8))
    plain = np.full((SIDE, SIDE, 3), 90, np.uint8)
    frames = Frame("crop", 20, 40, 250), other
    pictures = []
    for order in (frames, frames[::-1]):
        pictures.append(photo.image.copy())
        for frame in order:
            others = [each for each in frames if each is not frame]
            Paste(photo, frame, plain, others=others)(plain + np.uint8(40), onto=pictures[-1])
    result, again = (np.asarray(each, int) for each in pictures)
    assert np.abs(result - again).max() <= 1
    assert 160 <= result.max() <= 161
    # Between the two middles the change is whole, and away from them it fades without a step.
    middles = [frame.middle for frame in frames]
    for t in np.linspace(0, 1, 20):
        x, y = (middles[0] * (1 - t) + middles[1] * t).astype(int)
        assert (result[y, x] >= 158).all()
    assert max(np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1)) <= 5


def test_a_frame_of_another_photo_is_refused() -> None:
    plain = np.zeros((SIDE, SIDE, 3), np.uint8)
    with pytest.raises(PhotoError, match="does not lie within"):
        Paste(photo_of(picture(200, 200)), Frame("crop", 100, 100, 150), plain)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], Path]:
    """Peaks of memory in bytes of work on a photo of 100 megapixels, and the folder of its results."""
    folder = tmp_path_factory.mktemp("large")
    image = Image.effect_noise((1100, 900), 40).convert("RGB").resize((11000, 9000))
    image.save(folder / "large.jpg", icc_profile=adobe_rgb())
    del image
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=environment)
    return json.loads(done.stdout), folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "profile"])
def test_edits_of_a_photo_of_100_megapixels_need_at_most_one_and_a_half_gigabytes(
    large: tuple[dict[str, int], Path], name: str
) -> None:
    peaks, folder = large
    assert peaks[name] < 1.5e9
    assert sorted(path.name for path in folder.glob(f"{name}.*")) == [f"{name}.it+2.jpg", f"{name}.it-2.jpg"]


@pytest.mark.slow
def test_a_photo_of_100_megapixels_is_decoded_within_a_gigabyte(large: tuple[dict[str, int], Path]) -> None:
    """In the process that asks, and in the one that decodes, which lets go of each picture as it is sent."""
    peaks, _ = large
    assert peaks["asking"] < 1e9
    assert peaks["decoding"] < 1e9
