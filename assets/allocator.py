"""The allocator of the C library, told to keep large blocks.

By default glibc maps every block above 32 MB anew, and returns it when it is freed. The kernel then has to clear each
page again: in a step of full size, whose maps have 64 MB, that takes longer than the arithmetic.
"""

from __future__ import annotations

import ctypes
from typing import Final

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_KEPT: Final = 2**30  # bytes


def keep_freed() -> None:
    """Keep up to a gigabyte of freed memory for what is allocated next, in one arena for all threads.

    `give_back` returns it. Does nothing where the C library has no such settings. The arenas of threads would map large
    blocks as before.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return
    if not set_option(_MMAP_THRESHOLD, _KEPT):
        # Earlier releases allow 32 MB at most: map nothing there.
        set_option(_MMAP_MAX, 0)
    set_option(_TRIM_THRESHOLD, _KEPT)
    set_option(_ARENA_MAX, 1)


def give_back() -> None:
    """Return freed memory to the system. Does nothing where the C library cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
