"""Previews as JPEG files."""

from __future__ import annotations

import io

from PIL import Image

from sidecar.job import Image8

QUALITY = 85


def jpeg(image: Image8) -> bytes:
    """A JPEG file of uint8 [H, W, 3], RGB."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
