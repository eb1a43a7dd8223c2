"""Names of results: safe as a file's name, and different for different photos."""

from __future__ import annotations

import hashlib
import os
import unicodedata

# A name has several parts and an ending, and at most 255 bytes.
_MAX_BYTES = 100
_DIGEST = 8


def part_of(text: str) -> str:
    """Return a text that is safe as a part of a file's name, of at most 100 bytes; letters and marks stay."""
    safe = "".join(c if unicodedata.category(c)[0] in "LMN" or c in "-_+ ." else "_" for c in text).strip(". ")
    return safe.encode(errors="replace")[:_MAX_BYTES].decode(errors="ignore").strip(". ")


def distinct_part(text: str) -> str:
    """Return :func:`part_of`, with a digest where that changed the text: different texts stay different."""
    safe = part_of(text)
    if safe == text:
        return safe
    short = safe.encode()[: _MAX_BYTES - _DIGEST - 1].decode(errors="ignore")
    return f"{short}-{digest_of(text)}".lstrip("-")


def digest_of(text: str) -> str:
    """Return eight hex digits for a text or a path, UTF-8 or not."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:_DIGEST]


def stem_of(name: str, suffix: str) -> str:
    """Return what the results of a file of this name are called."""
    return distinct_part(name.removesuffix(suffix)) or "photo"
