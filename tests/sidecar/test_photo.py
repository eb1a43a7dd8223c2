"""The photo of a request: modes, sizes, orientation, and everything that is no photo."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from protocol import refine_pb2 as pb
from protocol.limits import ContractError
from sidecar.service import photo

COLOUR = (200, 100, 50)
FORMS = {"PNG": ("RGB", "L", "P", "RGBA", "1"), "JPEG": ("RGB", "L", "CMYK"), "WEBP": ("RGB", "RGBA")}


def encoded(picture: Image.Image, form: str, **options: object) -> pb.RefineRequest:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return pb.RefineRequest(encoded=buffer.getvalue())


def header(width: int, height: int) -> pb.RefineRequest:
    """A small PNG that claims another size."""
    data = bytearray(encoded(Image.new("L", (64, 64)), "PNG").encoded)
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return pb.RefineRequest(encoded=bytes(data))


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in FORMS.items() for mode in modes])
@pytest.mark.parametrize("side", [16, 64, 300])
def test_photos_of_any_mode_and_size_become_the_generators(form: str, mode: str, side: int) -> None:
    found = photo.square(encoded(Image.new("RGB", (side, side), COLOUR).convert(mode), form), resolution=64)
    assert (found.shape, found.dtype) == ((64, 64, 3), np.uint8)
    if mode not in ("L", "1"):
        assert np.abs(found.mean(axis=(0, 1)) - COLOUR).max() < 12


def test_deep_greys_keep_their_tones() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    found = photo.square(encoded(Image.fromarray(ramp), "PNG"), resolution=64)
    assert np.array_equal(found, np.rint(ramp / 257).astype(np.uint8)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_transparent_pixels_are_grey(mode: str) -> None:
    picture = Image.new("RGB", (64, 64), COLOUR)
    if mode == "RGBA":
        picture.putalpha(0)
        request = encoded(picture, "PNG")
    else:
        transparency = b"\0" * 256 if mode == "P" else picture.convert("L").getpixel((0, 0))
        request = encoded(picture.convert(mode), "PNG", transparency=transparency)
    assert np.unique(photo.square(request, resolution=64)).tolist() == [128]


def test_pixels_of_the_generators_size_are_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    request = pb.RefineRequest(pixels=pb.Pixels(width=64, height=64, rgb=pixels.tobytes()))
    assert np.array_equal(photo.square(request, resolution=64), pixels)
    assert np.array_equal(photo.square(encoded(Image.fromarray(pixels), "PNG"), resolution=64), pixels)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(form: str) -> None:
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    picture.paste((0, 0, 0), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = photo.square(encoded(picture, form, exif=exif.tobytes()), resolution=64)
    assert found[:20].mean() > 200
    assert found[-20:].mean() < 50


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_orientation_leaves_the_pixels(form: str) -> None:
    picture = Image.new("RGB", (64, 64), COLOUR)
    exif = b"Exif\0\0MM\0*\0\0\xff\xff" + b"\xff" * 20
    found = photo.square(encoded(picture, form, exif=exif), resolution=64)
    assert np.abs(found.mean(axis=(0, 1)) - COLOUR).max() < 12


@pytest.mark.parametrize("form", ["GIF", "TIFF", "BMP"])
def test_other_formats_are_refused(form: str) -> None:
    with pytest.raises(ContractError, match="not a whole PNG, JPEG or WebP"):
        photo.square(encoded(Image.new("RGB", (64, 64)), form), resolution=64)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (4097, 4097, "4097x4097 pixels, expected a side of 16 to 4096"),
        # Pillow warns of the first itself, and refuses the second.
        (10_000, 10_000, "expected a side of 16 to 4096"),
        (60_000, 60_000, "expected a side of 16 to 4096"),
        (15, 15, "15x15 pixels, expected a side of 16 to 4096"),
        (4096, 4095, "4096x4095 pixels, expected a square"),
    ],
)
def test_a_header_that_claims_what_is_not_taken_is_enough(
    width: int, height: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Image.Image) -> None:
        raise AssertionError("it is decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ContractError, match=message):
        photo.square(header(width, height), resolution=64)


def test_the_largest_that_is_taken_is_taken() -> None:
    request = encoded(Image.new("1", (4096, 4096), 1), "PNG")
    assert photo.square(request, resolution=64).min() == 255


@pytest.mark.parametrize("form", FORMS)
def test_a_photo_cut_short_is_refused(form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    whole = encoded(noise, form).encoded
    with pytest.raises(ContractError, match="not a whole PNG, JPEG or WebP"):
        photo.square(pb.RefineRequest(encoded=whole[: len(whole) // 2]), resolution=64)


@given(st.data())
def test_damaged_photos_are_refused_or_read(data: st.DataObject) -> None:
    whole = encoded(Image.new("RGB", (32, 32), COLOUR), data.draw(st.sampled_from(sorted(FORMS)))).encoded
    spoilt = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, len(spoilt) - 1), max_size=4)):
        spoilt[place] ^= data.draw(st.integers(1, 255))
    with suppress(ContractError):
        assert photo.square(pb.RefineRequest(encoded=bytes(spoilt)), resolution=16).shape == (16, 16, 3)
