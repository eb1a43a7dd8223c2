"""Files of every format that ask for more work than any photo: refused before they are decoded."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from client import Photo, PhotoError
from photos.work import MAX_PARTS, TooMuchWork, check_parts, check_scans
from protocol.limits import ContractError
from sidecar.service import photo as served
from tests.photos.tiffs import tiff

MANY = MAX_PARTS + 1
PIXELS = Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8))


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PIXELS.save(buffer, kind, **options)
    return buffer.getvalue()


def png(kind: bytes, count: int = MANY) -> bytes:
    data = encoded("PNG")
    return data[:33] + (bytes(4) + kind + struct.pack(">I", zlib.crc32(kind))) * count + data[33:]


def jpeg(marker: int, body: bytes, count: int) -> bytes:
    data = encoded("JPEG")
    return data[:2] + (bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body) * count + data[2:]


def gif(block: bytes, count: int = MANY) -> bytes:
    buffer = io.BytesIO()
    PIXELS.quantize(256).save(buffer, "GIF")
    data = buffer.getvalue()
    start = 13 + 3 * (2 << (data[10] & 7))
    return data[:start] + block * count + data[start:]


def webp() -> bytes:
    data = encoded("WEBP", lossless=True)
    body = data[8:] + b"none\0\0\0\0" * MANY
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp() -> bytes:
    runs = b"\1\7" * 32 * 32 + b"\0\2\0\0" * (10 * MANY)
    header = struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


def tiles(**form: object) -> bytes:
    """A thousand pixels a side in tiles of one pixel, which are all the same."""
    side = 4
    basic = {256: (4, 1, 1000), 257: (4, 1, 1000), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    return tiff(basic | {322: (4, 1, 1), 323: (4, 1, 1), 324: (side, 10**6, -1)}, bytes(4 * 10**6), **form)


def scans_in_a_strip() -> bytes:
    buffer = io.BytesIO()
    PIXELS.convert("L").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    data = data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 200 + data[-2:]
    basic = {256: (4, 1, 32), 257: (4, 1, 32), 258: (3, 1, 8), 259: (3, 1, 7), 262: (3, 1, 1), 277: (3, 1, 1)}
    return tiff(basic | {273: (4, 1, -1), 278: (4, 1, 32), 279: (4, 1, len(data))}, data)


BOMBS = {
    "png-pixels": lambda: png(b"IDAT"),
    "png-metadata": lambda: png(b"eXIf"),
    "png-unknown": lambda: png(b"abCd"),
    "jpeg-exif": lambda: jpeg(0xE1, b"Exif\0\0abcd", 300_000),
    "jpeg-large-exif": lambda: jpeg(0xE1, b"Exif\0\0" + bytes(60_000), 800),
    "jpeg-comments": lambda: jpeg(0xFE, b"c", 500_000),
    "jpeg-profiles": lambda: jpeg(0xE2, b"ICC_PROFILE\0\1\1abc", 300_000),
    "jpeg-tables": lambda: jpeg(0xDB, b"\0" + bytes(range(1, 65)), 100_000),
    "jpeg-resources": lambda: jpeg(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000, 30),
    "jpeg-zeros": lambda: encoded("JPEG")[:2] + bytes(10**6) + encoded("JPEG")[2:],
    "gif-blocks": lambda: gif(b"!\xf9\4\0\0\0\0\0"),
    "gif-comment": lambda: gif(b"!\xfe" + b"\1c" * MANY + b"\0", 1),
    "webp-chunks": webp,
    "bmp-runs": bmp,
    "tiff-tiles": tiles,
    "tiff-tiles-of-motorola": lambda: tiles(order=">"),
    "tiff-tiles-big": lambda: tiles(big=True),
    "tiff-scans": scans_in_a_strip,
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_too_many_parts_are_refused_at_once(name: str) -> None:
    data = BOMBS[name]()
    began = time.process_time()
    with pytest.raises(PhotoError, match=r"a [A-Za-z]+ file of .*, which takes too long to decode"):
        Photo.decode(data)
    assert time.process_time() - began < 1
    if len(data) <= served.MAX_BYTES and name.partition("-")[0] in ("png", "jpeg", "webp"):
        began = time.process_time()
        with pytest.raises(ContractError, match=r"invalid photo: a .* takes too long to decode"):
            served._decoded_here(data)
        assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "data",
    [
        lambda: png(b"abCd", 20_000),
        lambda: jpeg(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000), 100),
        lambda: jpeg(0xE2, b"ICC_PROFILE\0\1\1abc", 255),
        lambda: gif(b"!\xfe" + (b"\xff" + b"c" * 255) * 4000 + b"\0", 1),
        lambda: encoded("TIFF", compression="jpeg"),
        lambda: encoded("TIFF", compression="tiff_lzw"),
        lambda: encoded("WEBP"),
        lambda: encoded("AVIF"),
        lambda: encoded("BMP"),
    ],
)
def test_what_photos_have_is_taken(data) -> None:
    assert Photo.decode(data()).size == (32, 32)


@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"GIF89a", b"BM", b"RIFF", b"\xff\xd8"])
def test_damage_is_left_for_the_decoder(start: bytes) -> None:
    for length in (0, 1, 4, 40, 4000):
        check_parts(start + bytes(length))
        check_parts(start + b"\xff" * length)


def test_the_side_car_allows_fewer_scans_of_large_photos() -> None:
    check_scans(10, 100_000_000)
    check_scans(20, served.MAX_SIDE**2, most=served.MAX_WORK)
    with pytest.raises(TooMuchWork, match="a JPEG file of 21 scans"):
        check_scans(21, served.MAX_SIDE**2, most=served.MAX_WORK)
