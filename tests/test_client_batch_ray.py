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
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import cli
from client.batch import cluster
from client.batch.ledger import Ledger
from tests.client_fakes import FakeTriton, direction_file, serving

# Ray itself is imported later: it reads how it proves who it is when it is.
if importlib.util.find_spec("ray") is None:
    pytest.skip("the extra ray is not installed", allow_module_level=True)
COUNT = 12
# Ray leaves it to the end of the process to close what it talked to its processes by.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


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


def batch(*arguments: str, out: str = "out", engine: str = "ray") -> int:
    edit = f"{Path('age.safetensors').absolute()}=-1,2"
    fixed = ["batch", "edit", "--photos", "photos", "--edit", edit, "--fast", "--concurrency", "1"]
    return cli.main([*fixed, "--out", out, "--engine", engine, *arguments])


def results(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("ledger", "report"))
    }


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


def test_two_workers_make_what_one_process_makes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["photos"] == {"pending": 0, "done": COUNT, "failed": 0}
    assert batch(out="alone", engine="local") == 0
    assert results(place / "out") == results(place / "alone")
    assert batch("--resume", "--json") == 0


def test_a_worker_that_is_killed_in_the_middle_costs_nothing(place: Path, triton: FakeTriton) -> None:
    triton.on_infer = lambda *_: time.sleep(0.15)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            if list(Path("out").glob("*/reconstruction.jpg")) and (found := workers()):
                os.kill(victim := min(found), signal.SIGKILL)
                killed.append(victim)
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert batch() == 0
    killer.join()
    assert killed
    triton.on_infer = None
    with Ledger(place / "out/ledger.sqlite") as ledger:
        assert ledger.counts() == {"pending": 0, "done": COUNT, "failed": 0}
        assert {entry.attempts for entry in ledger.entries("done", limit=COUNT)} == {1}
    assert batch(out="alone", engine="local") == 0
    assert results(place / "out") == results(place / "alone")


def test_a_photo_that_cannot_be_made_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "photos/05.png").write_bytes(b"no photo")
    assert batch("--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["photos"] == {"pending": 0, "done": COUNT - 1, "failed": 1}
    assert "05.png" in report["failures"][0]["sentence"]


def test_servers_that_stay_away_leave_the_rest(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["UNALIGNED_URL"]
    monkeypatch.setenv("UNALIGNED_URL", "127.0.0.1:9")
    assert batch("--patience", "1", "--timeout", "1") == 3
    told = capsys.readouterr().err
    assert "No Triton server answers at 127.0.0.1:9" in told
    assert told.endswith("; 0 of 12 photos are done: go on by the same command with --resume.\n")
    monkeypatch.setenv("UNALIGNED_URL", url)
    monkeypatch.setattr(cluster, "_CHUNK", 5)
    assert batch("--resume") == 0
    assert batch(out="alone", engine="local") == 0
    assert results(place / "out") == results(place / "alone")


@pytest.mark.usefixtures("place")
def test_a_cluster_must_be_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch("--address", "127.0.0.1:9") == 3
    assert "No Ray cluster answers at 127.0.0.1:9; 0 of 12 photos are done" in capsys.readouterr().err
    monkeypatch.delenv("RAY_ADDRESS")
    assert batch("--resume") == 2
    assert "--address names a Ray cluster, or is local" in capsys.readouterr().err
    assert batch("--workers", "0") == 2


@pytest.mark.usefixtures("place")
def test_without_ray_there_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert batch() == 2
    assert "pip install 'unaligned[client,ray]'" in capsys.readouterr().err
