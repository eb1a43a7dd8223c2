"""Sentences that several commands share in their help."""

from __future__ import annotations

from typing import Final

from client.limits import FORMAT_NAMES, MAX_BYTES, MAX_MEGAPIXELS, MAX_SECONDS, MIN_SIDE

PHOTOS: Final = (
    f"Photos: {FORMAT_NAMES}, at most {MAX_MEGAPIXELS} megapixels (checked before decoding) and "
    f"{MAX_BYTES // 2**20} MiB, with sides of at least {MIN_SIDE} pixels and {MAX_SECONDS} s of decoding. "
    "EXIF orientation and colour profiles are applied, transparency becomes mid grey, and metadata is dropped."
)
STOPPED: Final = (
    "Ctrl-C, SIGTERM or a lost side-car leaves the inversion of the last checkpoint, of each face, and `client refine` "
    "continues it."
)
ACCESS: Final = "Each of the --tls and --token options is also an environment variable. Without them: plain text."
