from __future__ import annotations

import hashlib
import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from client.errors import PhotoError
from client.files.photo import BACKGROUND, MAX_MEGAPIXELS, MIN_SIDE, Photo
from client.frames.frame import Frame
from tests.client.fakes import check_sentence, unhurried
from tests.photos.pngs import png


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quadrants(width: int = 40, height: int = 32) -> Image.Image:
    """Red, green / blue, white: every orientation looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def colour(photo: Photo, x: int = 5, y: int = 5) -> tuple[int, int, int]:
    found = photo.image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def refused(data: bytes) -> str:
    with pytest.raises(PhotoError) as caught:
        Photo.decode(data, name="it.jpg")
    check_sentence(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_formats(kind):
    data = encoded(quadrants(), kind)
    photo = Photo.decode(data, name="it")
    assert photo.size == (40, 32)
    assert photo.image.mode == "RGB"
    assert np.abs(np.subtract(colour(photo), (255, 0, 0))).max() < 12
    assert photo.sha256 == hashlib.sha256(data).hexdigest()


def test_other_formats_are_refused():
    assert "JPEG, PNG" in refused(encoded(quadrants(), "PPM"))


@pytest.mark.parametrize(
    "data", [b"", b"hello, world", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0" + b"\xff" * 40]
)
def test_not_an_image(data):
    assert "image" in refused(data) or "damaged" in refused(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_truncated(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    message = refused(data[: len(data) // 2])
    assert "damaged" in message or "not an image" in message


@unhurried
@given(st.binary(max_size=60), st.integers(0, 900))
def test_damaged_bytes_give_a_photo_or_a_sentence(junk, place):
    data = encoded(quadrants(), "JPEG", exif=orientation(3))
    damaged = data[:place] + junk + data[place + len(junk) :]
    try:
        assert Photo.decode(damaged).image.mode == "RGB"
    except PhotoError as problem:
        check_sentence(problem)


@pytest.mark.parametrize("size", [(10_001, 10_000), (15_000, 9_000), (60_000, 60_000)])
def test_bomb(size):
    assert f"{MAX_MEGAPIXELS} megapixels" in refused(png(*size, b""))


def test_the_cap_itself_is_not_a_bomb(monkeypatch):
    monkeypatch.setattr("client.files.photo.MAX_MEGAPIXELS", 1)
    assert "damaged PNG" in refused(png(1000, 1000, b""))
    assert "1 megapixels" in refused(png(1001, 1000, b""))


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000), (MIN_SIDE - 1, 300)])
def test_too_small(size):
    message = refused(encoded(Image.new("RGB", size)))
    assert "{}x{}".format(*size) in message
    assert str(MIN_SIDE) in message


def test_long_and_thin_is_a_photo():
    photo = Photo.decode(encoded(Image.new("RGB", (20_000, MIN_SIDE))))
    assert Frame.square(photo.size) == Frame("square", 9992, 0, MIN_SIDE)


def test_files(tmp_path):
    for path, words in ((tmp_path / "none.jpg", "does not exist"), (tmp_path, "directory")):
        with pytest.raises(PhotoError, match=words):
            Photo.open(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PhotoError, match="regular file"):
        Photo.open(tmp_path / "pipe")
    with pytest.raises(PhotoError):
        Photo.open("a\0b")
    (tmp_path / "a.png").write_bytes(encoded(quadrants()))
    assert Photo.open(tmp_path / "a.png").name == "a.png"


def test_file_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("client.files.photo.MAX_BYTES", 100)
    (tmp_path / "a.png").write_bytes(bytes(101))
    with pytest.raises(PhotoError, match="larger than"):
        Photo.open(tmp_path / "a.png")


def test_names_are_one_printable_line():
    with pytest.raises(PhotoError) as caught:
        Photo.decode(b"", name="a\nb\x1b[31m\udcff.jpg")
    assert str(caught.value).isprintable()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    exif[0x010E] = "a private description"
    return exif


@pytest.mark.parametrize(
    ("value", "corner"),
    [
        (1, (255, 0, 0)),
        (2, (0, 255, 0)),
        (3, (255, 255, 255)),
        (4, (0, 0, 255)),
        (5, (255, 0, 0)),
        (6, (0, 0, 255)),
        (7, (255, 255, 255)),
        (8, (0, 255, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_metadata_dropped(value, corner, kind):
    photo = Photo.decode(encoded(quadrants(), kind, exif=orientation(value)))
    assert photo.size == ((40, 32) if value < 5 else (32, 40))
    assert np.abs(np.subtract(colour(photo), corner)).max() < 12
    assert not photo.image.info
    assert not dict(photo.image.getexif())


def test_unreadable_exif_leaves_the_pixels():
    data = encoded(quadrants(), "JPEG", exif=b"Exif\0\0garbage that is no TIFF")
    assert Photo.decode(data).size == (40, 32)


def test_cmyk():
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    assert np.abs(np.subtract(colour(Photo.decode(encoded(image, "JPEG"))), (255, 0, 0))).max() < 12
    assert colour(Photo.decode(encoded(image, "TIFF"))) == (255, 0, 0)


@pytest.mark.parametrize(("deep", "shallow"), [(0, 0), (257, 1), (32896, 128), (40000, 156), (65535, 255)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled(deep, shallow, kind):
    image = Image.fromarray(np.full((32, 32), deep, np.uint16))
    assert colour(Photo.decode(encoded(image, kind))) == (shallow,) * 3


@pytest.mark.parametrize(
    ("values", "shown"),
    [((0.0, 0.5), 128), ((0.0, 1.0), 255), ((0.0, 200.0), 200), ((0.0, 257.0 * 100), 100), ((0.0, 1e9), 255)],
)
def test_float_grey(values, shown):
    pixels = np.full((32, 32), values[1], np.float32)
    pixels[20:] = values[0]
    photo = Photo.decode(encoded(Image.fromarray(pixels), "TIFF"))
    assert colour(photo) == (shown,) * 3
    assert colour(photo, 5, 30) == (0, 0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_float_grey_that_is_no_grey(value):
    assert "grey values" in refused(encoded(Image.fromarray(np.full((32, 32), value, np.float32)), "TIFF"))


def test_grey_of_other_integers():
    thirty_two_bits = Image.fromarray(np.full((32, 32), 257 * 90, np.int32))
    assert colour(Photo.decode(encoded(thirty_two_bits, "TIFF"))) == (90,) * 3
    big_endian = Image.frombytes("I;16B", (32, 32), np.full((32, 32), 40000, ">u2").tobytes())
    assert colour(Photo.decode(encoded(big_endian, "TIFF"))) == (156,) * 3


def test_palette_grey_and_bilevel():
    assert colour(Photo.decode(encoded(quadrants().quantize(8)))) == (255, 0, 0)
    assert colour(Photo.decode(encoded(Image.new("L", (32, 32), 77)))) == (77, 77, 77)
    assert colour(Photo.decode(encoded(Image.new("1", (32, 32), 1)))) == (255, 255, 255)


def test_transparency_becomes_mid_grey():
    clear, half = (255, 0, 0, 0), (255, 0, 0, 128)
    assert colour(Photo.decode(encoded(Image.new("RGBA", (32, 32), clear)))) == BACKGROUND
    mixed = colour(Photo.decode(encoded(Image.new("RGBA", (32, 32), half))))
    assert np.abs(np.subtract(mixed, (192, 64, 64))).max() <= 1
    assert colour(Photo.decode(encoded(Image.new("LA", (32, 32), (255, 0))))) == BACKGROUND
    palette = quadrants().quantize(8)
    index = palette.getpixel((5, 5))
    for kind in ("PNG", "GIF"):
        photo = Photo.decode(encoded(palette, kind, transparency=index))
        assert colour(photo) == BACKGROUND
        assert colour(photo, 39, 5) == (0, 255, 0)
    assert colour(Photo.decode(encoded(quadrants(), transparency=(255, 0, 0)))) == BACKGROUND


def test_first_frame():
    frames = [Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")]
    for kind in ("GIF", "WEBP", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(np.subtract(colour(Photo.decode(data)), (255, 0, 0))).max() < 12


def test_phone_pictures_with_a_second_image():
    data = encoded(quadrants(), "MPO", save_all=True, append_images=[quadrants()])
    assert Photo.decode(data).size == (40, 32)


def test_colour_profile_is_applied():
    # A profile whose green and blue are swapped in XYZ shows at once whether it was used.
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = Photo.decode(encoded(quadrants(), icc_profile=srgb))
    assert colour(plain) == (255, 0, 0)
    # A profile of another colour space than the pixels', or a damaged one, is left aside.
    for profile in (lab, b"junk", srgb[:200]):
        assert colour(Photo.decode(encoded(quadrants(), icc_profile=profile))) == (255, 0, 0)
    swapped = bytearray(srgb)
    entries = {}
    for index in range(int.from_bytes(srgb[128:132])):
        at = 132 + 12 * index
        entries[srgb[at : at + 4]] = at
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    swapped[red + 4 : red + 12], swapped[blue + 4 : blue + 12] = srgb[blue + 4 : blue + 12], srgb[red + 4 : red + 12]
    assert (
        np.abs(np.subtract(colour(Photo.decode(encoded(quadrants(), icc_profile=bytes(swapped)))), (0, 0, 255))).max()
        < 12
    )
