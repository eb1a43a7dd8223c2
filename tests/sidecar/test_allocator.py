"""Memory of a step is not asked for again in the next one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from assets import allocator
from assets.paths import project_root

# Page faults of ten blocks of 64 MB, one after the other, in a thread, as in a step.
FAULTS = """
import resource, threading
import numpy as np
from assets.allocator import keep_freed
keep_freed()

def step():
    a, b = (np.ones(2**23) for _ in range(2))

def steps():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version") or "LD_PRELOAD" in os.environ, reason="another allocator"
)
def test_freed_memory_is_used_again() -> None:
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=project_root())
    # Ten blocks have 160,000 pages, or 320 huge ones.
    assert int(done.stdout) < 160


def test_where_the_threshold_is_too_high_nothing_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        asked.append((option, value))
        return int(option != -3)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    allocator.keep_freed()
    assert asked == [(-3, 2**30), (-4, 0), (-1, 2**30), (-8, 1)]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    allocator.keep_freed()
