"""The contact sheet: captioned pictures side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE = 512
COLUMNS = 6
_MARGIN = 12
_CAPTION = 40
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def sheet(pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> Image.Image:
    """Lay captioned pictures side by side, in rows of at most ``COLUMNS``.

    Args:
        pictures: captions, and uint8 RGB [H, W, 3], each resampled to a tile of ``TILE`` pixels.

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
    for index, (caption, pixels) in enumerate(pictures):
        left = _MARGIN + index % COLUMNS * (TILE + _MARGIN)
        top = _MARGIN + index // COLUMNS * (TILE + _CAPTION + _MARGIN)
        picture = Image.fromarray(pixels)
        if picture.size != (TILE, TILE):
            picture = picture.resize((TILE, TILE), Image.Resampling.LANCZOS)
        page.paste(picture, (left, top))
        text = _fitted(caption, font)
        draw.text((left + TILE / 2, top + TILE + _CAPTION / 2), text, fill=_INK, font=font, anchor="mm")
    return page


def png(picture: Image.Image | NDArray[np.uint8]) -> bytes:
    """Return a PNG file's bytes."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    # The default level takes several times as long for a few percent.
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def jpeg(picture: NDArray[np.uint8], *, quality: int = 95) -> bytes:
    """Return a JPEG file's bytes, without subsampled colours; the same for the same picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _fitted(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = caption
    while font.getlength(text) > TILE and caption:
        caption = caption[:-1]
        text = f"{caption}..."
    return text
