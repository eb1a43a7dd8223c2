"""Photos that public bug reports describe: odd metadata, unusual depths and colours, work that never ends."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from client import Photo, PhotoError
from client.files import colour
from client.files.png import SIGNATURE
from tests.photos.pngs import png_of_16_bits, with_chunk
from tests.photos.tiffs import tiff

INPUTS = Path(__file__).parents[3] / "shared/inputs"
PIXELS = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Photo.decode(data).image)


PNG = encoded(Image.fromarray(PIXELS), "PNG")


@pytest.mark.parametrize(
    "key", ["icc_profile", "transparency", "interlace", "bbox", "exif", "gamma", "dpi", "duration", "loop", "anything"]
)
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_text_of_a_png_is_never_taken_for_what_the_decoder_says(key, kind):
    body = {
        b"tEXt": key.encode() + b"\0x",
        b"zTXt": key.encode() + b"\0\0" + zlib.compress(b"x"),
        b"iTXt": key.encode() + b"\0\0\0\0\0x",
    }[kind]
    np.testing.assert_array_equal(pixels(with_chunk(PNG, kind, body)), PIXELS)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 7, 300])
def test_transparency_of_a_wrong_length_is_dropped(length):
    np.testing.assert_array_equal(pixels(with_chunk(PNG, b"tRNS", bytes(length))), PIXELS)


def test_a_palette_that_is_missing_is_one_sentence():
    data = encoded(Image.fromarray(PIXELS).quantize(16), "PNG")
    start = data.index(b"PLTE") - 4
    with pytest.raises(PhotoError, match="cannot convert `it` to RGB: colours of mode P"):
        Photo.decode(data[:start] + data[start + 12 + int.from_bytes(data[start : start + 4]) :], name="it")


@pytest.mark.parametrize("size", [2**20 + 1, 5 * 2**20])
def test_large_text_and_large_profiles_of_a_png_are_no_damage(size):
    for kind, head in ((b"tEXt", b"Comment\0"), (b"zTXt", b"Comment\0\0"), (b"iCCP", b"name\0\0")):
        body = bytes(size) if kind == b"tEXt" else zlib.compress(bytes(size))
        np.testing.assert_array_equal(pixels(with_chunk(PNG, kind, head + body)), PIXELS)


def test_a_large_profile_of_a_png_is_applied():
    profile = colour.adobe_rgb()
    padded = struct.pack(">I", len(profile) + 2**21) + profile[4:] + bytes(2**21)
    body = b"name\0\0" + zlib.compress(padded)
    small = encoded(Image.fromarray(PIXELS), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(pixels(with_chunk(PNG, b"iCCP", body)), pixels(small))
    assert not np.array_equal(pixels(small), PIXELS)


@pytest.mark.parametrize("value", ["text", 7])
def test_a_profile_of_the_wrong_type_is_dropped(value):
    data = encoded(Image.fromarray(PIXELS), "TIFF", tiffinfo={34675: value})
    np.testing.assert_array_equal(pixels(data), PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_read_and_one_without_pixels_is_not(progressive):
    data = encoded(Image.fromarray(PIXELS), "JPEG", progressive=progressive)
    photo = Photo.decode(data[:-2])
    np.testing.assert_array_equal(np.asarray(photo.image), pixels(data))
    assert "end marker" in photo.note
    assert Photo.decode(data).note == ""
    for cut in (40, 200, len(data) // 2):
        with pytest.raises(PhotoError, match="truncated"):
            Photo.decode(data[:-cut])


@pytest.mark.parametrize(("top", "bits"), [(1023, 10), (4095, 12), (1500, 12), (65535, 16), (20_000, 16), (257, 16)])
def test_greys_of_ten_and_twelve_bits_are_as_bright_as_they_are_meant(top, bits):
    values = np.linspace(0, top, 48 * 64).astype(np.uint16).reshape(48, 64)
    for kind in ("PNG", "TIFF"):
        found = pixels(encoded(Image.fromarray(values), kind))[..., 0]
        np.testing.assert_array_equal(found, np.rint(values * (255 / (2**bits - 1))))


def test_adobe_rgb_by_exif_alone_is_applied():
    image = Image.new("RGB", (48, 48), (100, 200, 50))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    options = {"quality": 100, "subsampling": 0}
    named = pixels(encoded(image, "JPEG", exif=exif, **options)).astype(int)
    profiled = pixels(encoded(image, "JPEG", icc_profile=colour.adobe_rgb(), **options)).astype(int)
    plain = pixels(encoded(image, "JPEG", **options)).astype(int)
    assert np.abs(named - profiled).max() == 0
    assert np.abs(named - plain).max() > 50


def test_profiles_that_are_made_here_are_right():
    srgb = ImageCms.createProfile("sRGB")
    same = ImageCms.ImageCmsProfile(io.BytesIO(colour._profile(colour._PRIMARIES[1], colour._srgb)))
    image = Image.fromarray(PIXELS)
    converted = np.asarray(ImageCms.profileToProfile(image, same, srgb, outputMode="RGB")).astype(int)
    assert np.abs(converted - PIXELS).max() <= 1
    assert colour.by_code_points(1, 13) is None
    assert colour.by_code_points(200, 13) is None


@pytest.mark.parametrize(("top", "bits"), [(1023, 10), (4095, 12), (1500, 12), (65535, 16), (20_000, 16), (257, 16)])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_ten_and_twelve_bits_are_as_bright_as_they_are_meant(top, bits, channels):
    values = np.linspace(0, top, 48 * 64 * channels).astype(">u2").reshape(48, 64, channels)
    if channels == 4:
        values[..., 3] = 2**bits - 1
    data = png_of_16_bits(values)
    # Pillow cuts off the lower 8 of 16 bits, and rounds nothing.
    allowed = 1 if bits == 16 else 0.51
    meant = values[..., :3].astype(float) * (255 / (2**bits - 1))
    assert np.abs(pixels(data) - meant).max() <= allowed


@pytest.mark.parametrize(("top", "bits"), [(1023, 10), (4095, 12), (65535, 16), (20_000, 16)])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("order", "packed"), [("<", False), (">", False), ("<", True), (">", True)])
def test_colours_of_a_tiff_are_as_bright_as_they_are_meant(top, bits, channels, order, packed):
    values = np.linspace(0, top, 48 * 64 * channels).astype(f"{order}u2").reshape(48, 64, channels)
    if channels == 4:
        values[..., 3] = 65535
    data = zlib.compress(values.tobytes()) if packed else values.tobytes()
    entries = {256: (4, 1, 64), 257: (4, 1, 48), 258: (3, 1, 16), 259: (3, 1, 8 if packed else 1), 262: (3, 1, 2)}
    entries |= {273: (4, 1, -1), 277: (3, 1, channels), 278: (4, 1, 48), 279: (4, 1, len(data))}
    entries |= {338: (3, 1, 2)} if channels == 4 else {}
    allowed = 1 if bits == 16 else 0.51
    meant = values[..., :3].astype(float) * (255 / (2**bits - 1))
    assert np.abs(pixels(tiff(entries, data, order=order)) - meant).max() <= allowed


@pytest.mark.parametrize("points", [(12, 13), (9, 16), (9, 18), (1, 8)])
def test_the_code_points_of_a_png_are_applied(points):
    profile = colour.by_code_points(*points)
    assert profile is not None
    tagged = pixels(with_chunk(PNG, b"cICP", bytes([*points, 0, 1])))
    np.testing.assert_array_equal(tagged, pixels(encoded(Image.fromarray(PIXELS), "PNG", icc_profile=profile)))
    np.testing.assert_array_equal(pixels(with_chunk(PNG, b"cICP", bytes([1, 13, 0, 1]))), PIXELS)


def test_a_jpeg_of_too_many_scans_is_refused_before_it_is_decoded():
    data = encoded(Image.new("RGB", (2048, 2048)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    began = time.perf_counter()
    with pytest.raises(PhotoError, match="scans, which takes too long"):
        Photo.decode(data[:-2] + scan * 2000 + data[-2:])
    assert time.perf_counter() - began < 1
    assert Photo.decode(data).size == (2048, 2048)


def test_avif_and_heic_are_read():
    flat = Image.new("RGB", (64, 48), (100, 150, 200))
    for kind, extra in (("AVIF", "PIL._avif"), ("HEIF", "pillow_heif")):
        found = pytest.importorskip(extra)
        if kind == "HEIF":
            found.register_heif_opener()
        assert np.abs(pixels(encoded(flat, kind)).astype(int) - (100, 150, 200)).max() <= 4


@pytest.mark.skipif(not (INPUTS / "README.md").is_file(), reason="the sample inputs are not there")
@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("text-key-icc-profile.png", None),
        ("profile-of-wrong-type.tif", None),
        ("ztxt-of-1-mib.png", None),
        ("no-end-marker.jpg", "end marker"),
        ("twelve-bits-in-sixteen.tif", "more than 8 bits a channel"),
    ],
)
def test_the_samples_are_read(name: str, note: str | None) -> None:
    photo = Photo.open(INPUTS / name)
    assert 100 < np.asarray(photo.image).mean() < 160
    assert (note in photo.note) if note else (photo.note == "")


@pytest.mark.skipif(not (INPUTS / "README.md").is_file(), reason="the sample inputs are not there")
def test_the_sample_that_asks_for_too_much_work_is_refused_at_once():
    began = time.perf_counter()
    with pytest.raises(PhotoError, match="2302 scans"):
        Photo.open(INPUTS / "progressive-bomb.jpg")
    assert time.perf_counter() - began < 1
    assert SIGNATURE.startswith(b"\x89PNG")
