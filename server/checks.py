"""Checks before the Triton of the wheel is started; a message says what to do.

Raises `server.errors.LaunchError`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from server.errors import LaunchError

LEAST_SHM = 256 << 20  # bytes: a batch of 8 images through each of the largest models, and a MiB a process
_ODD = re.compile(r"[^A-Za-z0-9_.,:=@%+/~^-]")


def check_shared_memory() -> None:
    """Check that there is enough shared memory for the backends.

    Raises:
        LaunchError: /dev/shm has less than `LEAST_SHM` bytes free.
    """
    stats = os.statvfs("/dev/shm")
    free = stats.f_bavail * stats.f_frsize
    if free < LEAST_SHM:
        raise LaunchError(
            "give the server more shared memory, in a container with `--shm-size=1g`: "
            f"/dev/shm has {free >> 20} MiB free, and the backends need {LEAST_SHM >> 20} MiB"
        )


def check_path(path: Path) -> None:
    """Refuse a path that the Python backend cannot pass on to its processes.

    Raises:
        LaunchError: it has a space, a quote, or a character that is not ASCII.
    """
    if odd := sorted(set(_ODD.findall(str(path)))):
        listed = " ".join(repr(character) for character in odd)
        raise LaunchError(
            f"cannot serve from `{path}`: Triton's Python backend cannot read paths with {listed}; "
            "move it to a path of plain letters, digits, `-`, `_` and `.`"
        )
