"""JPEG files whose end marker is missing."""

from __future__ import annotations

from typing import Final

_END: Final = b"\xff\xd9"
_NOISE: Final = b"\x5a\xa5\x3c" * 64


def ended(data: bytes) -> tuple[bytes, bytes]:
    """Return the file with an end marker, twice, with different bytes before it.

    The decoder fills pixels that are missing from those bytes. So the pixels of both are the same only where none is.
    """
    return data + _END, data + _NOISE + _END
