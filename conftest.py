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

# Session fixtures of server_tests/ that start servers, and the group of their users: each group runs in one worker, so
# that each server starts once, and never two of the real ones at a time.
SHARED = {"triton": "servers", "sidecar": "servers", "small": "small side-car"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for ``--dist loadgroup``: by the servers they share, or by module; the longest groups come first."""

    def group(item: pytest.Item) -> str:
        used = getattr(item, "fixturenames", ()) if item.nodeid.startswith("server_tests/") else ()
        return next((name for fixture, name in SHARED.items() if fixture in used), item.nodeid.partition("::")[0])

    groups, ranks = [group(item) for item in items], dict[str, int]()
    for item, name in zip(items, groups, strict=True):
        long = item.nodeid.startswith("server_tests/") or item.get_closest_marker("slow")
        ranks[name] = min(ranks.get(name, 2), 0 if name == "servers" else 1 if long else 2)
        item.add_marker(pytest.mark.xdist_group(name))
    if workers:
        order = sorted(range(len(items)), key=lambda place: ranks[groups[place]])
        items[:] = [items[place] for place in order]
