"""The version of this package."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the package's version; ``unknown`` in a checkout that is not installed."""
    try:
        return metadata.version("unaligned")
    except metadata.PackageNotFoundError:
        return "unknown"
