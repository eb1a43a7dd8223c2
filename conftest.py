"""Settings of every test run: signals, threads, and which tests share a worker of pytest-xdist."""

from __future__ import annotations

import os
import signal
from typing import Any

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

# Files whose tests run in one worker with --dist loadgroup, so that the servers that they share start once, and never
# two of the real ones at a time. Every other file is a group of its own.
GROUPS = {
    "server_tests/client/": "servers",
    "server_tests/server/test_L0_metrics.py": "servers",
    "server_tests/server/test_L0_verify.py": "servers",
    "server_tests/sidecar/": "small side-car",
}


def group(nodeid: str) -> str:
    """The group of a test."""
    path = nodeid.partition("::")[0]
    return next((name for start, name in GROUPS.items() if path.startswith(start)), path)


@pytest.fixture(scope="session", autouse=True)
def allocator() -> None:
    """Spend no time on clearing memory again and again; after the measurement of coverage has begun."""
    from assets.allocator import keep_freed

    keep_freed()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Schedule by `group`: pytest-xdist 3.8 does not find its own marks of groups with pytest 9.2."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group  # type: ignore[method-assign]
    return scheduler


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest groups come first: the servers', then those of other servers and of slow tests."""
    ranks: dict[str, int] = {}
    for item in items:
        name, fixtures = group(item.nodeid), getattr(item, "fixturenames", ())
        if item.nodeid.startswith("server_tests/") and {"triton", "sidecar"} & set(fixtures) and name != "servers":
            raise pytest.UsageError(f"{item.nodeid} uses a shared server: add its file to GROUPS in conftest.py")
        long = item.nodeid.startswith("server_tests/") or item.get_closest_marker("slow")
        ranks[name] = min(ranks.get(name, 2), 0 if name == "servers" else 1 if long else 2)
    if workers:
        items.sort(key=lambda item: ranks[group(item.nodeid)])
