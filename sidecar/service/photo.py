"""The photo of a request: bounded before it is decoded, square, resampled to the generator's resolution."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps

from photos.child import allow
from photos.decoding import Crashed, Decoding, Refused, TooCostly, TooSlow
from photos.work import TooMuchWork, check_parts, check_scans, scans
from protocol import refine_pb2 as pb
from protocol.limits import ContractError
from sidecar.job import Image8

MAX_SIDE = 4096
MAX_SECONDS = 10
# Limits of CPU time: for opening a photo, and then for its pixels.
OPENING_SECONDS = 2
PIXELS_A_SECOND = 4_000_000
# Scans times pixels: the largest photo in 20 scans.
MAX_WORK = 20 * MAX_SIDE**2
DAMAGED = "cannot read the photo: not a whole PNG, JPEG or WebP file"
MAX_BYTES = 16 * 2**20
MIN_SIDE = 16
FORMATS = ("PNG", "JPEG", "WEBP")
# The background of transparent pixels, the same as in the client.
BACKGROUND = (128, 128, 128, 255)


def square(request: pb.RefineRequest, *, resolution: int) -> Image8:
    """The photo of a request, uint8 [resolution, resolution, 3], RGB.

    Raises:
        ContractError: it is missing, not an image of an allowed format, not square, too large or too small.
    """
    kind = request.WhichOneof("photo")
    if kind is None:
        raise ContractError("invalid request: it has no photo")
    picture = _raw(request.pixels) if kind == "pixels" else _decoded(request.encoded)
    return np.asarray(picture.resize((resolution, resolution), Image.Resampling.LANCZOS, reducing_gap=3.0))


def _raw(pixels: pb.Pixels) -> Image.Image:
    _check(pixels.width, pixels.height)
    wanted = 3 * pixels.width * pixels.height
    if len(pixels.rgb) != wanted:
        raise ContractError(f"invalid photo: {len(pixels.rgb)} bytes, expected {wanted}")
    return Image.frombytes("RGB", (pixels.width, pixels.height), pixels.rgb)


def _decoded(data: bytes) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise ContractError(f"invalid photo: {len(data)} bytes, expected at most {MAX_BYTES}")
    try:
        said, pixels = _decoding({}, data)
    except Refused as exc:
        if exc.kind == ContractError.__name__:
            raise ContractError(str(exc)) from exc
        raise ContractError(DAMAGED) from exc
    except TooCostly as exc:
        raise ContractError("invalid photo: it takes far longer to decode than others of its size") from exc
    except TooSlow as exc:
        raise ContractError(f"cannot decode the photo within {MAX_SECONDS} seconds") from exc
    except Crashed as exc:
        raise ContractError(DAMAGED) from exc
    return Image.frombytes("RGB", (said["side"], said["side"]), pixels)


def decoded(_said: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode as a `photos.child.Decode`: RGB pixels, and the side of the square."""
    allow(OPENING_SECONDS)
    picture = _decoded_here(data)
    return {"side": picture.width}, picture.tobytes()


_decoding: Final = Decoding("sidecar.service.photo:decoded", seconds=MAX_SECONDS, processes=2)


def _decoded_here(data: bytes) -> Image.Image:
    try:
        check_parts(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check(picture.width, picture.height)
            if picture.format == "JPEG":
                check_scans(scans(data), picture.width * picture.height, most=MAX_WORK)
            allow(OPENING_SECONDS + picture.width * picture.height / PIXELS_A_SECOND)
            picture.load()
            with suppress(Exception):  # a damaged EXIF block says nothing: the pixels stay as stored
                ImageOps.exif_transpose(picture, in_place=True)
            return _rgb(picture)
    except ContractError:
        raise
    except TooMuchWork as exc:
        raise ContractError(f"invalid photo: {exc} takes too long to decode") from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise ContractError(f"invalid photo: too many pixels, expected a side of {MIN_SIDE} to {MAX_SIDE}") from exc
    except Exception as exc:  # decoders raise whatever a damaged file leads them to
        raise ContractError(DAMAGED) from exc


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        return Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        shown = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, BACKGROUND), shown).convert("RGB")
    return picture.convert("RGB")


def _check(width: int, height: int) -> None:
    if width != height:
        raise ContractError(f"invalid photo: {width}x{height} pixels, expected a square")
    if not MIN_SIDE <= width <= MAX_SIDE:
        raise ContractError(f"invalid photo: {width}x{height} pixels, expected a side of {MIN_SIDE} to {MAX_SIDE}")
