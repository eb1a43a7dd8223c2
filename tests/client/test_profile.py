"""Results keep a photo's ICC profile, and what they do not keep is said."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from client import Frame, Inverter, Paste, Photo, cli
from client.files import profile as profiles
from client.files.colour import adobe_rgb, by_code_points
from client.files.sheet import encoded, fitted
from tests.client.change.test_paste import picture
from tests.client.running import failed, reported
from tests.photos.pngs import png_of_16_bits

FRAME = Frame("crop", 60, 40, 160)
DISPLAY_P3 = by_code_points(12, 13)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(path: Path, profile: bytes | None, **options: object) -> np.ndarray:
    """Write a photo with saturated colours and a profile; returns its own pixels."""
    pixels = picture(300, 240).copy()
    pixels[:, 250:] = (255, 0, 10)
    Image.fromarray(pixels).save(path, icc_profile=profile, **options)
    return pixels


@pytest.mark.parametrize("profile", [adobe_rgb(), DISPLAY_P3, SRGB])
def test_an_edit_is_in_the_photos_own_colours(tmp_path: Path, profile: bytes) -> None:
    own = saved(tmp_path / "wide.png", profile)
    photo = Photo.open(tmp_path / "wide.png")
    plain = photo.pixels(FRAME, 160)
    result = Paste(photo, FRAME, plain)(plain // 2 + np.uint8(60))
    assert result.info["icc_profile"] == profile
    pixels = np.asarray(result)
    outside = np.ones(own.shape[:2], bool)
    outside[40:200, 60:220] = False
    assert np.array_equal(pixels[outside], own[outside])
    assert (pixels[~outside] != own[~outside]).mean() > 0.5
    # Shown, it is what the same edit of the photo in sRGB is.
    plain_photo = Photo(photo.image, photo.name, photo.sha256)
    expected = np.asarray(Paste(plain_photo, FRAME, plain)(plain // 2 + np.uint8(60)), int)
    inside = np.s_[60:180, 80:200]
    assert np.abs(np.asarray(profiles.displayed(result), int) - expected)[inside].mean() < 1.5


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_files_have_the_profile_and_sheets_are_srgb(form: str) -> None:
    image = Image.new("RGB", (40, 40), (250, 10, 20))
    image.info["icc_profile"] = profile = adobe_rgb()
    with Image.open(io.BytesIO(encoded(image, form))) as again:  # type: ignore[arg-type]
        assert again.info["icc_profile"] == profile
    assert fitted(image, 20).getpixel((9, 9)) != (250, 10, 20)
    with Image.open(io.BytesIO(encoded(Image.new("RGB", (9, 9)), form))) as plain:  # type: ignore[arg-type]
        assert "icc_profile" not in plain.info


def test_commands_keep_it_and_arrays_are_srgb(place: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    saved(place / "wide.png", DISPLAY_P3)
    (edit,) = reported(capsys, "invert", "--fast", "wide.png", "--frame", "60,40,160", "--edit", "age=3")["edits"]
    with Image.open(edit["image"]) as result:
        assert result.info["icc_profile"] == DISPLAY_P3
    with Inverter(url) as inverter:
        made = inverter.invert("wide.png", Frame.crop(60, 40, 160))
        (array,) = inverter.edit(made.inversion, "age", [3.0], "wide.png")
        (render,) = inverter.edit(made.inversion, "age", [3.0])
        paste = Paste(Photo.open("wide.png"), made.inversion.frame, inverter.render(made.inversion))
    assert np.array_equal(array, profiles.displayed(paste(render)))


@pytest.mark.parametrize("kind", ["CMYK", "I;16", "F", "RGB;16"])
def test_what_results_do_not_keep_is_said(place: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = "odd.tif"
    if kind == "RGB;16":
        path = "odd.png"
        deep = np.random.default_rng(0).integers(0, 65535, (64, 64, 3), np.uint16)
        Path(path).write_bytes(png_of_16_bits(deep))
    elif kind == "CMYK":
        Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(path)
    else:
        Image.fromarray(np.full((64, 64), 40000, np.uint16 if kind == "I;16" else np.float32)).save(path)
    photo = Photo.open(path)
    assert photo.image.mode == "RGB"
    words = "a CMYK photo: edits of it are RGB" if kind == "CMYK" else "more than 8 bits a channel: edits of it have 8"
    assert words in photo.note
    assert cli.main(["invert", "--fast", path, "--frame", "square", "--edit", "age=1"]) == 0
    assert words in capsys.readouterr().err
    with Image.open(next((place / "out/odd").glob("*age+1.png"))) as result:
        assert result.mode == "RGB"


def test_profiles_that_cannot_be_kept_leave_srgb(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    saved(path, b"no profile at all")
    assert Photo.decode(path.read_bytes()).own is None
    saved(path, DISPLAY_P3)
    assert Photo.decode(path.read_bytes()).own is not None


@pytest.mark.usefixtures("place")
def test_a_hostile_profile_is_one_sentence_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    assert DISPLAY_P3 is not None
    for _ in range(20):
        damaged = bytearray(DISPLAY_P3)
        for at in rng.integers(0, len(damaged), 30):
            damaged[at] = rng.integers(0, 256)
        saved(Path("odd.png"), bytes(damaged))
        photo = Photo.open("odd.png")
        plain = photo.pixels(FRAME, 64)
        assert Paste(photo, FRAME, plain)(255 - plain).size == (300, 240)
    failed(capsys, "invert", "--fast", "odd.png", "--face", "5")
