"""Photos from anywhere, decoded to RGB within bounds.

Colours become 8-bit sRGB: an embedded colour profile is applied, CMYK and grey are converted, 16-bit greys are scaled,
palettes are expanded, and transparency is composited over mid grey (128). Metadata ends here.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from client.errors import PhotoError
from client.files.atomic import read_bounded
from client.text import quoted, shown

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
FORMAT_NAMES = "JPEG, PNG, WebP, TIFF, BMP or GIF (first frame)"
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
MAX_MEGAPIXELS = 100
MAX_BYTES = 512 * 2**20
MIN_SIDE = 16
BACKGROUND = (128, 128, 128)
_MAX_PROFILE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Crop:
    """A square of the photo as shown (after its EXIF orientation), in pixels.

    Attributes:
        x: distance of the left edge from the photo's left edge.
        y: distance of the top edge from the photo's top edge.
        size: side of the square, at least ``MIN_SIDE``.
    """

    x: int
    y: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Crop:
        """Read ``x,y,size``.

        Raises:
            PhotoError: the text is not three whole numbers.
        """
        try:
            x, y, size = (int(part) for part in text.split(","))
        except ValueError as problem:
            raise PhotoError(
                f"invalid crop {quoted(text)}: expected x,y,size in whole pixels, for example 40,0,512"
            ) from problem
        return cls(x, y, size)

    def __str__(self) -> str:
        """Return ``x,y,size``."""
        return f"{self.x},{self.y},{self.size}"


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo.

    Attributes:
        image: mode RGB, oriented as shown, without metadata.
        name: the file's name without its folders.
        sha256: hex digest of the file's bytes.
    """

    image: Image.Image
    name: str
    sha256: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Photo:
        """Read and decode a file.

        Raises:
            PhotoError: it is missing, not a regular file, larger than ``MAX_BYTES``, or refused by ``decode``.
        """
        return cls.decode(read_bounded(path, limit=MAX_BYTES, error=PhotoError), name=Path(path).name)

    @classmethod
    def decode(cls, data: bytes, *, name: str = "photo") -> Photo:
        """Decode the bytes of an image file.

        Raises:
            PhotoError: not an allowed format, damaged, more than ``MAX_MEGAPIXELS``, or a side under ``MIN_SIDE``.
        """
        name = shown(name)
        image = _open(data, name)
        width, height = image.size
        if width * height > MAX_MEGAPIXELS * 1_000_000:
            raise PhotoError(_too_large(name, f"{width}x{height} pixels"))
        if min(width, height) < MIN_SIDE:
            raise PhotoError(
                f"{quoted(name)} is too small: {width}x{height} pixels, but both sides must be at least {MIN_SIDE}"
            )
        try:
            image.load()
        except Exception as problem:
            # Decoders of foreign bytes raise nearly anything (OSError, SyntaxError, struct.error, zlib.error, ...).
            raise PhotoError(f"cannot read {quoted(name)}: a truncated or damaged {image.format} file") from problem
        with suppress(Exception):
            # A damaged EXIF block says nothing about the orientation: the pixels stay as stored.
            ImageOps.exif_transpose(image, in_place=True)
        image = _to_rgb(image, name)
        image.info = {}
        return cls(image=image, name=name, sha256=hashlib.sha256(data).hexdigest())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as shown."""
        return self.image.size

    def square(self, crop: Crop | None = None) -> Crop:
        """Return the crop, or the largest centred square where there is none.

        Raises:
            PhotoError: the crop does not lie within the photo, or is smaller than ``MIN_SIDE``.
        """
        width, height = self.size
        if crop is None:
            size = min(width, height)
            return Crop((width - size) // 2, (height - size) // 2, size)
        if crop.size < MIN_SIDE:
            raise PhotoError(f"the crop {crop} is too small: its side must be at least {MIN_SIDE} pixels")
        if min(crop.x, crop.y) < 0 or crop.x + crop.size > width or crop.y + crop.size > height:
            raise PhotoError(
                f"the crop {crop} (x,y,size) does not lie within {quoted(self.name)}, which is {width}x{height} pixels"
            )
        return crop

    def pixels(self, crop: Crop, size: int) -> NDArray[np.uint8]:
        """Return the square, resampled by Lanczos to uint8 RGB [size, size, 3]."""
        box = (crop.x, crop.y, crop.x + crop.size, crop.y + crop.size)
        return np.array(self.image.resize((size, size), Image.Resampling.LANCZOS, box=box), dtype=np.uint8)


def _open(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow's own limit warns; ours refuses, after the header and before any pixel is decoded.
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as problem:
        raise PhotoError(_too_large(name, "a huge image")) from problem
    except UnidentifiedImageError as problem:
        raise PhotoError(f"cannot read {quoted(name)}: not an image (expected {FORMAT_NAMES})") from problem
    except Exception as problem:
        # As for decoding: a damaged header raises nearly anything.
        raise PhotoError(f"cannot read {quoted(name)}: a truncated or damaged image file") from problem


def _too_large(name: str, what: str) -> str:
    return f"{quoted(name)} is too large: {what}, but photos may have at most {MAX_MEGAPIXELS} megapixels"


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled_grey(image, name).convert("RGB")
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, (*BACKGROUND, 255)), rgba).convert("RGB")
        elif image.mode not in {"RGB", "L", "CMYK"}:
            image = image.convert("RGB")
        if profile and len(profile) <= _MAX_PROFILE_BYTES:
            image = _to_srgb(image, profile)
        return image.convert("RGB")
    except ValueError as problem:
        raise PhotoError(f"cannot convert {quoted(name)} to RGB: colours of mode {image.mode}") from problem


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A damaged profile, or one of another colour space: the numbers are taken as sRGB.
        return image
    return converted if converted is not None else image


def _scaled_grey(image: Image.Image, name: str) -> Image.Image:
    """Scale deep greys to 8 bits; where the mode leaves the range open, the least usual one that holds the maximum."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise PhotoError(f"{quoted(name)} has grey values that are negative or not finite")
    if image.mode.startswith("I;16"):
        full = 65535.0
    else:
        ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        full = next((top for top in ranges if values.max() <= top), float(values.max()))
    return Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8))
