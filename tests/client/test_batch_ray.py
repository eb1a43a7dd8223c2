"""The engine of a cluster against the engine of one process, on a Ray cluster of this machine with two workers."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from client import Access, cli
from client.batch import cluster
from client.batch.ledger import Ledger
from client.batch.manifest import Item
from tests.client.fakes import FakeTriton, direction_file, serving
from tests.client.running import results

if importlib.util.find_spec("ray") is None:
    pytest.skip("the extra ray is not installed", allow_module_level=True)
COUNT = 12


HEAD = """
import sys, ray
ray.init(address="local", num_cpus=2, object_store_memory=10**8, include_dashboard=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of a cluster, which asks for a token."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"MODE": "token", "TOKEN": secrets.token_hex(32)}.items():
            patched.setenv(f"RAY_AUTH_{name}", value)
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with subprocess.Popen(
            [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            yield process.stdout.readline().decode().strip()
            process.stdin.close()


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton(cuts=(16, 8, 4))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, triton: FakeTriton, head: str) -> Iterator[Path]:
    """A folder to work in, with a server, photos, a direction and a cluster."""
    monkeypatch.chdir(tmp_path)
    direction_file(tmp_path / "age.safetensors")
    (tmp_path / "photos").mkdir()
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (70, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number:02}.png")
    monkeypatch.setenv("RAY_ADDRESS", head)
    with serving(triton) as address:
        monkeypatch.setenv("UNALIGNED_URL", address)
        yield tmp_path


FIXED = ["batch", "edit", "--photos", "photos", "--edit", "age.safetensors=-1,2", "--fast", "--concurrency", "1"]


def batch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A separate process: Ray leaves traces in the process it runs in, and takes it down with its cluster."""
    command = [sys.executable, "-m", "client", *FIXED, "--out", "out", "--engine", "ray", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def made(*arguments: str, code: int = 0) -> dict[str, Any]:
    """The report of a batch, which is all of what it prints; Ray's own log may be on stderr."""
    done = batch("--json", *arguments)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, bytes]:
    """The results of one process, once there are any."""
    return {}


def assert_as_alone(place: Path, alone: dict[str, bytes]) -> None:
    """Compare a batch's results with those of one process, which are made once: every test has the same photos."""
    if not alone:
        assert cli.main([*FIXED, "--out", "alone", "--engine", "local"]) == 0
        alone |= results(place / "alone")
    assert results(place / "out") == alone


def workers() -> dict[int, str]:
    """The processes of the cluster's actors."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if name.startswith("ray::MapWorker"):
            found[int(path.parent.name)] = name
    return found


@pytest.mark.slow
def test_two_workers_make_what_one_process_makes(place: Path, alone: dict[str, bytes]) -> None:
    assert made()["photos"] == {"pending": 0, "done": COUNT, "failed": 0}
    assert_as_alone(place, alone)
    assert made("--resume")["run"]["made"] == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_costs_nothing(
    place: Path, triton: FakeTriton, alone: dict[str, bytes]
) -> None:
    triton.on_infer = lambda *_: time.sleep(0.15)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            if (begun := list(Path("out").glob("*/reconstruction.jpg"))) and (found := workers()):
                os.kill(victim := min(found), signal.SIGKILL)
                # What it was writing, if it was.
                begun[0].with_name(".0123456789abcdef.tmp").write_bytes(b"half")
                killed.append(victim)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    made()
    killer.join()
    assert killed
    triton.on_infer = None
    with Ledger(place / "out/ledger.sqlite") as ledger:
        assert ledger.counts() == {"pending": 0, "done": COUNT, "failed": 0}
        assert {entry.attempts for entry in ledger.entries("done", limit=COUNT)} == {1}
    assert_as_alone(place, alone)


def test_a_photo_that_cannot_be_made_is_reported(place: Path) -> None:
    (place / "photos/05.png").write_bytes(b"no photo")
    report = made(code=1)
    assert report["photos"] == {"pending": 0, "done": COUNT - 1, "failed": 1}
    assert "05.png" in report["failures"][0]["sentence"]


@pytest.mark.slow
def test_servers_that_stay_away_leave_the_rest(
    place: Path, monkeypatch: pytest.MonkeyPatch, alone: dict[str, bytes]
) -> None:
    url = os.environ["UNALIGNED_URL"]
    monkeypatch.setenv("UNALIGNED_URL", "127.0.0.1:9")
    done = batch("--patience", "1", "--timeout", "1")
    assert (done.returncode, done.stdout) == (3, "")
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("error: no Triton server answers at 127.0.0.1:9")
    assert sentence.endswith("; 0 of 12 photos are done: continue with the same command and --resume")
    monkeypatch.setenv("UNALIGNED_URL", url)
    made("--resume")
    assert_as_alone(place, alone)


@pytest.mark.usefixtures("place")
def test_a_cluster_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    done = batch("--address", "127.0.0.1:9")
    assert done.returncode == 3
    assert done.stderr.startswith("error: no Ray cluster answers at `127.0.0.1:9`; 0 of 12 photos are done")
    monkeypatch.delenv("RAY_ADDRESS")
    done = batch("--resume")
    assert done.returncode == 2
    assert "pass --address with its address, or local" in done.stderr
    assert batch("--workers", "0").returncode == 2


def test_a_batch_of_more_than_one_chunk_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray is given at a time, without Ray."""
    left = [Item(f"{number}", f"{number}.png") for number in range(COUNT)]
    chunks: list[list[Item]] = []

    def rows(_assignment: cluster.Assignment, items: list[Item], _workers: int) -> Iterator[dict[str, Any]]:
        chunks.append(items)
        yield from ({"name": i.name, "stage": "done", "seconds": 1, "sentence": "", "kind": ""} for i in items)

    marked: list[str] = []
    ledger = SimpleNamespace(pending=lambda: iter(left), mark=lambda name, _: marked.append(name))
    monkeypatch.setattr(cluster, "_CHUNK", 5)
    monkeypatch.setattr(cluster, "_rows", rows)
    monkeypatch.setattr(cluster, "_cluster", lambda *_: nullcontext())
    job = cluster.Assignment(cast("Any", None), Path("out"), {"access": Access()}, 1.0, 1)
    cluster.run(job, cast("Any", ledger), workers=2, address="somewhere", progress=lambda: None)
    assert [len(chunk) for chunk in chunks] == [5, 5, 2]
    assert marked == [item.name for item in left]


@pytest.mark.usefixtures("place")
def test_without_ray_there_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    fixed = ["batch", "edit", "--photos", "photos", "--fast", "--out", "out", "--engine", "ray"]
    assert cli.main(fixed) == 2
    assert "pip install 'unaligned[client,ray]'" in capsys.readouterr().err
