"""The contact sheet: captioned pictures side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from client.atomic import Sink
from client.files.formats import Format
from client.files.profile import KEY, displayed

Picture = Image.Image | NDArray[np.uint8]
TILE = 512
COLUMNS = 6
_MARGIN = 12
_CAPTION = 40
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def sheet(pictures: Sequence[tuple[str, Picture]]) -> Image.Image:
    """Lay captioned pictures side by side, in rows of at most ``COLUMNS``.

    Args:
        pictures: captions, and pictures, uint8 RGB [H, W, 3], each resampled to fit a tile of ``TILE`` pixels.

    Returns:
        An RGB image on white, the captions below the tiles.
    """
    columns = min(len(pictures), COLUMNS)
    rows = -(-len(pictures) // COLUMNS)
    width = columns * (TILE + _MARGIN) + _MARGIN
    height = rows * (TILE + _CAPTION + _MARGIN) + _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=24)
    for index, (caption, whole) in enumerate(pictures):
        left = _MARGIN + index % COLUMNS * (TILE + _MARGIN)
        top = _MARGIN + index // COLUMNS * (TILE + _CAPTION + _MARGIN)
        picture = fitted(whole, TILE)
        page.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        text = _fitted(caption, font)
        draw.text((left + TILE / 2, top + TILE + _CAPTION / 2), text, fill=_INK, font=font, anchor="mm")
    return page


def fitted(picture: Picture, side: int) -> Image.Image:
    """Return a picture in sRGB, whose longer side is ``side`` pixels."""
    image = _image(picture)
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return displayed(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS))


def save(picture: Picture, form: Format, file: Sink, *, quality: int = 95) -> None:
    """Write a picture as a file of a format, with its ICC profile; the same picture always makes the same bytes."""
    image = _image(picture)
    # PNG's default level takes several times as long to save a few percent; JPEG keeps its colours at full resolution.
    options: dict[str, Any] = {"compress_level": 3} if form == "png" else {"quality": quality, "subsampling": 0}
    image.save(cast("IO[bytes]", file), format=form.upper(), icc_profile=image.info.get(KEY), **options)


def encoded(picture: Picture, form: Format, *, quality: int = 95) -> bytes:
    """Return the bytes that :func:`save` writes."""
    buffer = io.BytesIO()
    save(picture, form, buffer, quality=quality)
    return buffer.getvalue()


def png(picture: Picture) -> bytes:
    """Return a PNG file's bytes."""
    return encoded(picture, "png")


def jpeg(picture: Picture, *, quality: int = 95) -> bytes:
    """Return a JPEG file's bytes."""
    return encoded(picture, "jpeg", quality=quality)


def _image(picture: Picture) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def _fitted(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = caption
    while font.getlength(text) > TILE and caption:
        caption = caption[:-1]
        text = f"{caption}..."
    return text
