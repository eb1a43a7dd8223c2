"""PNG files before Pillow reads them: text is dropped, and the profile is read apart, whatever its size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES: Final = 8 * 2**20
# Chunks that change how pixels look; all other ancillary ones are dropped.
_KEPT: Final = {b"tRNS", b"eXIf"}
# Lengths of tRNS by the colour type: grey, colour, palette. Decoders refuse others, though the pixels are whole.
_TRANSPARENCY: Final = {0: (2,), 2: (6,), 3: range(1, 257)}
_MAX_TEXT_BYTES: Final = 2**20
# Text that may hold the orientation.
_ORIENTATION: Final = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


@dataclass(frozen=True)
class Cleaned:
    """A PNG file without its text, and what it says of its colours.

    Attributes:
        data: the file.
        profile: its ICC profile, unpacked.
        primaries, transfer: code points of its cICP chunk; 0 without one.
    """

    data: bytes
    profile: bytes | None = None
    primaries: int = 0
    transfer: int = 0


def cleaned(data: bytes) -> Cleaned:
    """Return a PNG file without ancillary chunks that do not change its pixels; damage is left for the decoder."""
    parts, profile, primaries, transfer = [SIGNATURE], None, 0, 0
    for kind, start, end in _chunks(data):
        body = data[start + 8 : end - 4] if kind in (b"iCCP", b"cICP", b"iTXt", b"tEXt", b"zTXt") else b""
        if kind == b"iCCP":
            profile = _profile(body)
        elif kind == b"cICP" and len(body) == 4:
            primaries, transfer = body[0], body[1]
        elif kind == b"tRNS" and end - start - 12 not in _TRANSPARENCY.get(int.from_bytes(data[25:26]), ()):
            continue
        elif kind[:1].isupper() or kind in _KEPT or _orients(kind, body):
            parts.append(data[start:end])
    return Cleaned(b"".join(parts), profile, primaries, transfer)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        yield kind, position, min(end, len(data))
        if kind == b"IEND":
            return
        position = end


def _orients(kind: bytes, body: bytes) -> bool:
    # Compressed text could unpack to anything.
    is_plain = kind == b"tEXt" or (kind == b"iTXt" and body[body.find(b"\0") + 1 :][:1] == b"\0")
    return is_plain and len(body) <= _MAX_TEXT_BYTES and body.startswith(_ORIENTATION)


def _profile(body: bytes) -> bytes | None:
    with suppress(zlib.error):
        unpacked = zlib.decompressobj()
        profile = unpacked.decompress(body[body.find(b"\0") + 2 :], MAX_PROFILE_BYTES)
        return profile if unpacked.eof else None
    return None
