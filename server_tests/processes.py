"""Processes and shared memory of servers, and polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def shared_memory(prefix: str) -> list[str]:
    """Entries of /dev/shm that begin with a prefix."""
    return [entry.name for entry in Path("/dev/shm").glob(f"{prefix}*")]


def shm_prefix(pid: int) -> str:
    """How the entries of /dev/shm of a server begin, by its command line."""
    option = "shm-region-prefix-name="
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next(word.partition(option)[2] for word in words if option in word)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def group(pid: int) -> list[int]:
    """The living processes of a process group: a server and its stubs."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == pid and fields[0] != "Z":
                pids.append(int(entry.name))
    return pids


def eventually(holds: Callable[[], bool], *, seconds: float = 30) -> bool:
    """Poll a condition; False if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
