"""Photos from anywhere, decoded to RGB within bounds.

Colours become 8-bit sRGB: an embedded colour profile is applied, CMYK and grey are converted, 16-bit greys are scaled,
palettes are expanded, and transparency is composited over mid grey (128). Metadata ends here: what the decoder keeps
of it is dropped unless it has the type that the decoder itself would give it.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from client.atomic import read_bounded
from client.errors import PhotoError
from client.files.colour import adobe_rgb, by_code_points
from client.files.depth import scaled_colour, scaled_grey
from client.files.png import MAX_PROFILE_BYTES, SIGNATURE, cleaned
from client.files.profile import OwnColours, own_colours, to_srgb
from client.files.strips import strips
from client.frames.cut import cut
from client.frames.frame import Frame
from client.limits import (
    FORMAT_NAMES,
    MAX_BYTES,
    MAX_MEGAPIXELS,
    MAX_SECONDS,
    MIN_SIDE,
    OPENING_SECONDS,
    PIXELS_A_SECOND,
)
from client.text import quoted, shown
from photos.child import Pieces, allow
from photos.decoding import Crashed, Decoding, Refused, Rest, TooCostly, TooSlow
from photos.jpeg import ended
from photos.work import TooMuchWork, check_parts, check_scans, scans

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
HEIF = "HEIF"
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".webp"),
    *(".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif", ".heic", ".heif", ".hif"),
)
BACKGROUND = (128, 128, 128)
# What Pillow's decoders put into `info`, and of which type: text of a file can have the same keys.
_INFO: Final[dict[str, type | tuple[type, ...]]] = {
    "background": (int, tuple),
    "bbox": tuple,
    "duration": (int, float),
    "exif": bytes,
    "extension": tuple,
    "icc_profile": bytes,
    "interlace": int,
    "loop": int,
    "transparency": (int, bytes, tuple),
    "version": bytes,
    "xmp": bytes,
    "XML:com.adobe.xmp": str,
    "Raw profile type exif": str,
}
_COLOUR_SPACE, _INTEROPERABILITY, _EXIF = 0xA001, 0xA005, 0x8769


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo.

    Attributes:
        image: mode RGB, oriented as shown, without metadata.
        name: the file's name without its folders.
        sha256: hex digest of the file's bytes.
        note: what is odd about the file, for its owner; usually nothing.
        own: the photo in the colours of its ICC profile, for results; None where it has none that can be kept.
    """

    image: Image.Image
    name: str
    sha256: str
    note: str = ""
    own: OwnColours | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Photo:
        """Read a file, and decode it in a process of its own, which may take ``MAX_SECONDS``.

        Raises:
            PhotoError: it is missing, not a regular file, larger than ``MAX_BYTES``, takes too long, or is refused by
                ``decode``.
        """
        data, name = read_bounded(path, limit=MAX_BYTES, error=PhotoError), Path(path).name
        what = f"cannot read {quoted(shown(name))}"
        try:
            return cls(**_decoding.taken({"name": name}, data, _received))
        except Refused as problem:
            if problem.kind == PhotoError.__name__:
                raise PhotoError(str(problem)) from problem
            raise PhotoError(f"{what}: unexpected {problem.kind}: {shown(str(problem), limit=300)}") from problem
        except TooCostly as problem:
            raise PhotoError(f"{what}: decoding takes far longer than that of other photos of its size") from problem
        except TooSlow as problem:
            raise PhotoError(f"{what}: decoding takes longer than {MAX_SECONDS} seconds") from problem
        except Crashed as problem:
            raise PhotoError(f"{what}: the decoder crashed, or ran out of memory") from problem

    @classmethod
    def decode(
        cls, data: bytes, *, name: str = "photo", measured: Callable[[int], object] = lambda _pixels: None
    ) -> Photo:
        """Decode the bytes of an image file in this process, however long that takes.

        Args:
            data: the file.
            name: the file's name, for messages.
            measured: called with the number of pixels before any is decoded.

        Raises:
            PhotoError: not an allowed format, damaged, more than ``MAX_MEGAPIXELS``, a side under ``MIN_SIDE``, or more
                parts or scans than any photo.
        """
        name = shown(name)
        try:
            return cls._decode(data, name, measured)
        except TooMuchWork as problem:
            raise PhotoError(f"cannot read {quoted(name)}: {problem}, which takes too long to decode") from problem

    @classmethod
    def _decode(cls, data: bytes, name: str, measured: Callable[[int], object]) -> Photo:
        check_parts(data)
        notes: list[str] = []
        png = cleaned(data) if data.startswith(SIGNATURE) else None
        image = _open(png.data if png else data, name)
        if png and png.profile:
            image.info["icc_profile"] = png.profile
        width, height = image.size
        if width * height > MAX_MEGAPIXELS * 1_000_000:
            raise PhotoError(_too_large(name, f"{width}x{height} pixels"))
        if min(width, height) < MIN_SIDE:
            raise PhotoError(
                f"{quoted(name)} is too small: {width}x{height} pixels, but both sides must be at least {MIN_SIDE}"
            )
        if image.format in ("JPEG", "MPO"):
            check_scans(scans(data), width * height)
        measured(width * height)
        notes += _reduced(image)
        try:
            image.load()
        except Exception as problem:
            # Decoders of foreign bytes raise nearly anything (OSError, SyntaxError, struct.error, zlib.error, ...).
            whole = _without_end(data) if image.format in ("JPEG", "MPO") else None
            if whole is None:
                raise PhotoError(f"cannot read {quoted(name)}: a truncated or damaged {image.format} file") from problem
            image = whole
            notes.append("the end marker of the JPEG file is missing, but every pixel is there")
        if (deep := scaled_colour(image, png.data if png else data)) is not None:
            image = deep
        _drop_untyped(image)
        named = image.info.get("icc_profile") or (
            by_code_points(png.primaries, png.transfer) if png else _profile_of_exif(image)
        )
        with suppress(Exception):
            # A damaged EXIF block says nothing about the orientation: the pixels stay as stored.
            ImageOps.exif_transpose(image, in_place=True)
        image, own = _to_rgb(image, name, named)
        image.info = {}
        digest = hashlib.sha256(data).hexdigest()
        return cls(image=image, name=name, sha256=digest, note="; ".join(notes), own=own)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as shown."""
        return self.image.size

    def canvas(self) -> Image.Image:
        """Return a copy for results, in the photo's own colours, with their profile."""
        return self.image.copy() if self.own is None else self.own.canvas()

    def pixels(self, frame: Frame, side: int) -> NDArray[np.uint8]:
        """Return what a frame shows: uint8 RGB [side, side, 3].

        Raises:
            PhotoError: the frame is too small, or does not show enough of the photo.
        """
        frame.require_photo(self.size, name=self.name)
        return cut(self.image, frame, side)


def decoded(said: dict[str, Any], data: bytes) -> tuple[dict[str, Any], Pieces]:
    """Decode as a `photos.child.Decode`: the photo's attributes; RGB pixels, those in its own colours, the profile."""
    allow(OPENING_SECONDS)
    photo = Photo.decode(
        data, name=said["name"], measured=lambda pixels: allow(OPENING_SECONDS + pixels / PIXELS_A_SECOND)
    )
    width, height = photo.size
    attributes = {"width": width, "height": height, "name": photo.name, "sha256": photo.sha256, "note": photo.note}
    attributes["own"] = photo.own is not None
    images, profile = [photo.image], b""
    if photo.own is not None:
        images, profile = [photo.image, photo.own.image], photo.own.profile
    return attributes, Pieces(3 * width * height * len(images) + len(profile), _pieces(images, profile))


def _pieces(images: list[Image.Image], profile: bytes) -> Iterator[bytes]:
    # Each picture is let go of once it is sent, while the other process takes it.
    while images:
        image = images.pop(0)
        for box in strips(image.size):
            yield image.crop(box).tobytes()
        del image
    yield profile


def _received(said: dict[str, Any], rest: Rest) -> dict[str, Any]:
    """Return a photo's attributes from what ``decoded`` sends."""
    size = said["width"], said["height"]
    if 3 * size[0] * size[1] > rest.left:
        raise Crashed("the process that decodes photos sent too few pixels")
    found = {"image": _picture(size, rest), **{key: said[key] for key in ("name", "sha256", "note")}}
    if said["own"]:
        found["own"] = OwnColours(_picture(size, rest), rest.read(rest.left))
    return found


def _picture(size: tuple[int, int], rest: Rest) -> Image.Image:
    image = Image.new("RGB", size)
    for box in strips(size):
        part = box[2] - box[0], box[3] - box[1]
        image.paste(Image.frombytes("RGB", part, rest.read(3 * part[0] * part[1])), box)
    return image


_decoding: Final = Decoding("client.files.photo:decoded", seconds=MAX_SECONDS)


def _open(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow's own limit warns; ours refuses, after the header and before any pixel is decoded.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as problem:
        raise PhotoError(_too_large(name, "a huge image")) from problem
    except UnidentifiedImageError as problem:
        raise PhotoError(f"cannot read {quoted(name)}: not an image (expected {FORMAT_NAMES})") from problem
    except Exception as problem:
        # As for decoding: a damaged header raises nearly anything.
        raise PhotoError(f"cannot read {quoted(name)}: a truncated or damaged image file") from problem
    _drop_untyped(image)
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are read: HEIC where the extra `heif` is installed."""
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, HEIF)


def _drop_untyped(image: Image.Image) -> None:
    image.info = {key: value for key, value in image.info.items() if isinstance(value, _INFO.get(str(key), ()))}


def _without_end(data: bytes) -> Image.Image | None:
    """Return a JPEG file whose end marker is missing; None where pixels are, too."""
    try:
        one, other = (Image.open(io.BytesIO(each), formats=("JPEG",)) for each in ended(data))
        same = one.tobytes() == other.tobytes()
    except Exception:
        return None
    return one if same else None


def _profile_of_exif(image: Image.Image) -> bytes | None:
    """Return the profile of Adobe RGB where EXIF names it, as cameras do."""
    with suppress(Exception):
        exif = image.getexif()
        index = exif.get_ifd(_INTEROPERABILITY).get(1)
        if exif.get_ifd(_EXIF).get(_COLOUR_SPACE) in (2, 0xFFFF) and str(index).rstrip("\0") == "R03":
            return adobe_rgb()
    return None


def _too_large(name: str, what: str) -> str:
    return f"{quoted(name)} is too large: {what}, but photos may have at most {MAX_MEGAPIXELS} megapixels"


def _reduced(image: Image.Image) -> list[str]:
    """What results do not keep of an image that is not loaded yet."""
    if image.mode == "CMYK":
        return ["a CMYK photo: edits of it are RGB"]
    deep = image.mode.startswith(("I", "F")) or any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    return ["a photo of more than 8 bits a channel: edits of it have 8"] if deep else []


def _to_rgb(image: Image.Image, name: str, profile: bytes | None) -> tuple[Image.Image, OwnColours | None]:
    """Return an image in sRGB, and in its own colours where results can keep them."""
    if image.mode.startswith("I") or image.mode == "F":
        return scaled_grey(image, name).convert("RGB"), None
    try:
        if image.has_transparency_data:
            image = _opaque(image)
        elif image.mode not in {"RGB", "L", "CMYK"}:
            image = image.convert("RGB")
        if profile and len(profile) <= MAX_PROFILE_BYTES:
            converted = to_srgb(image, profile)
            if converted is not image:
                return converted, own_colours(image, profile)
        return image.convert("RGB"), None
    except MemoryError:
        raise
    except Exception as problem:
        # Such as an AssertionError where the palette is missing.
        raise PhotoError(f"cannot convert {quoted(name)} to RGB: colours of mode {image.mode}") from problem


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image over ``BACKGROUND``: RGB."""
    found = Image.new("RGB", image.size)
    for box in strips(image.size):
        part = image.crop(box).convert("RGBA")
        found.paste(Image.alpha_composite(Image.new("RGBA", part.size, (*BACKGROUND, 255)), part).convert("RGB"), box)
    return found
