"""What can go wrong when published files are fetched.

Exception tree::

    AssetError
    └── WheelError      a pinned wheel cannot be fetched, fails its hash, or lacks a member
"""

from __future__ import annotations


class AssetError(Exception):
    """A published file cannot be obtained."""


class WheelError(AssetError):
    """A pinned wheel cannot be fetched, fails its hash, or lacks a member."""
