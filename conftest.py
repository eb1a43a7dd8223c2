"""Settings of every test run: signals, threads, and which tests share a worker of pytest-xdist."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# A run in the background inherits an ignored SIGINT, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers divide the cores among themselves. Set before anything imports torch or numpy.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))

# A busy machine must not change the verdict.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Session fixtures of server_tests/ that start a server. Their users run in one worker, so that each starts once.
SHARED = {"triton", "sidecar"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for ``--dist loadgroup``: the users of a shared server, which take longest, and others by module."""

    def shared(item: pytest.Item) -> bool:
        return item.nodeid.startswith("server_tests/") and bool(SHARED & set(getattr(item, "fixturenames", ())))

    for item in items:
        item.add_marker(pytest.mark.xdist_group("servers" if shared(item) else item.nodeid.partition("::")[0]))
    if workers:
        items.sort(key=lambda item: not shared(item))
