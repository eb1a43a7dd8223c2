"""A batch against the real Triton, which may be killed in the middle of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image

from assets.paths import build_dir, project_root
from client import Inversion
from server.ports import free_port
from server.triton import LocalTriton
from server_tests.client.test_L0_refine import STEPS, Sidecar, assert_same
from server_tests.conftest import unbuilt

data = pytest.importorskip("skimage.data", reason="scikit-image has the photo")
COUNT = 6


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Parts of one photo, each a little further on."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        part = data.astronaut()[20 : 20 + 160, 100 + 6 * number : 260 + 6 * number]
        Image.fromarray(part).save(folder / f"{number}.png")
    return folder


def command(photos: Path, out: Path, *more: str) -> list[str]:
    fixed = ["batch", "edit", "--photos", str(photos), "--out", str(out), "--edit", "age=-2,2", "--fast", "--json"]
    return [sys.executable, "-m", "client", *fixed, *more]


def ran(url: str, arguments: Sequence[str]) -> dict:
    environment = {**os.environ, "UNALIGNED_URL": url}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def results(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("ledger", "report"))
    }


def test_every_photo_is_edited(triton: LocalTriton, photos: Path, tmp_path: Path) -> None:
    report = ran(triton.url, command(photos, tmp_path / "out"))
    assert report["photos"] == {"pending": 0, "done": COUNT, "failed": 0}
    for number in range(COUNT):
        folder = tmp_path / f"out/{number}.png"
        assert Inversion.load(folder / "photo.inversion.safetensors").cut == 16
        shown = [np.asarray(Image.open(folder / f"{name}.jpg")) for name in ("age-2", "reconstruction", "age+2")]
        assert all(picture.shape == (1024, 1024, 3) for picture in shown)
        assert np.abs(shown[0].astype(int) - shown[2]).mean() > 3
    assert ran(triton.url, command(photos, tmp_path / "out", "--resume"))["run"]["made"] == 0


def test_a_triton_that_is_killed_and_restarted_costs_nothing(
    launch: Callable[..., LocalTriton], photos: Path, tmp_path: Path
) -> None:
    repository = project_root() / "model_repository"
    if unbuilt(repository):
        pytest.skip("model_repository is not built: run python -m export graphs")
    port = free_port("127.0.0.1", set())
    first = launch(repository, grpc_port=port)
    environment = {**os.environ, "UNALIGNED_URL": first.url}
    with subprocess.Popen(
        command(photos, tmp_path / "out", "--concurrency", "2"),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not list((tmp_path / "out").glob("*/reconstruction.jpg")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.stop()
        assert process.poll() is None
        second = launch(repository, grpc_port=port)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["photos"] == {"pending": 0, "done": COUNT, "failed": 0}
    with grpc.InferenceServerClient(second.url) as client:
        assert client.is_server_live()
    ran(second.url, command(photos, tmp_path / "whole"))
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_side_car_that_is_killed_and_restarted_costs_nothing(
    triton: LocalTriton, photos: Path, tmp_path: Path
) -> None:
    if not (build_dir() / ".judges").exists():
        pytest.skip("the side-car's weights are not there: run python -m export fetch --judges")
    # The same photo twice: what the side-car is killed in the middle of must be what it was not killed in.
    for photo in sorted(photos.iterdir())[2:]:
        photo.unlink()
    shutil.copy(photos / "0.png", photos / "1.png")
    command = [sys.executable, "-m", "client", "batch", "edit", "--photos", str(photos), "--out", str(tmp_path / "out")]
    command += ["--steps", str(STEPS), "--checkpoint-every", "1", "--concurrency", "1", "--json"]
    with Sidecar() as first:
        environment = {**os.environ, "UNALIGNED_URL": triton.url, "UNALIGNED_REFINE_URL": first.url}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not list((tmp_path / "out").glob("*/reconstruction.jpg")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(first.process.pid, signal.SIGKILL)
    with Sidecar(int(first.url.rpartition(":")[2])):
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["photos"] == {"pending": 0, "done": 2, "failed": 0}
    undisturbed, killed = (Inversion.load(tmp_path / f"out/{n}.png/photo.inversion.safetensors") for n in range(2))
    assert_same(killed, undisturbed)
