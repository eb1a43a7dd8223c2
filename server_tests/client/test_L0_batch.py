"""A batch on the real Triton, and batches on tiny models when a server is killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image
from skimage import data

from client import Inversion
from server.ports import free_port
from server.sidecar import LocalSidecar
from server.triton import LocalTriton
from server_tests.chaos.tiny import SIDECAR
from server_tests.client.commands import report, start, wait_for_file
from server_tests.client.test_L0_refine import assert_same

COUNT = 3
# Of tiny models, so that a server can be killed in the middle: photos, and steps of 0.02 s.
MANY, STEPS = 16, 200


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Crops of one photo, each shifted a little."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        part = data.astronaut()[20 : 20 + 160, 100 + 6 * number : 260 + 6 * number]
        Image.fromarray(part).save(folder / f"{number}.png")
    return folder


BATCH = ("batch", "edit", "--photos", "photos", "--edit", "age=-2,2", "--fast")


def results(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("ledger", "report"))
    }


def test_every_photo_is_edited(triton: LocalTriton, photos: Path) -> None:
    made = report(photos.parent, *BATCH, "--out", "out", url=triton.url)
    assert made["photos"] == {"pending": 0, "done": COUNT, "failed": 0}
    for number in range(COUNT):
        folder = photos.parent / f"out/{number}.png"
        assert Inversion.load(folder / "photo.inversion.safetensors").cut == 16
        shown = [np.asarray(Image.open(folder / f"{name}.jpg")) for name in ("age-2", "reconstruction", "age+2")]
        photo = np.asarray(Image.open(photos / f"{number}.png"))
        assert [picture.shape for picture in shown] == [photo.shape, (1024, 1024, 3), photo.shape]
        assert np.abs(shown[0].astype(int) - shown[2]).mean() > 3
    assert report(photos.parent, *BATCH, "--out", "out", "--resume", url=triton.url)["run"]["made"] == 0


def test_a_triton_that_is_killed_and_restarted_costs_nothing(
    launch: Callable[..., LocalTriton], tiny_models: Path, photos: Path
) -> None:
    for number in range(COUNT, MANY):
        shutil.copy(photos / f"{number % COUNT}.png", photos / f"{number}.png")
    place, port = photos.parent, free_port("127.0.0.1", set())
    first = launch(tiny_models, grpc_port=port)
    with start(place, [*BATCH, "--out", "out", "--concurrency", "2", "--json"], url=first.url) as process:
        wait_for_file(process, place, "out/*/reconstruction.jpg")
        os.kill(first.pid, signal.SIGKILL)
        first.stop()
        assert process.poll() is None
        second = launch(tiny_models, grpc_port=port)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["photos"] == {"pending": 0, "done": MANY, "failed": 0}
    with grpc.InferenceServerClient(second.url) as client:
        assert client.is_server_live()
    report(place, *BATCH, "--out", "whole", url=second.url)
    assert results(place / "out") == results(place / "whole")


def test_a_side_car_that_is_killed_and_restarted_costs_nothing(
    launch: Callable[..., LocalTriton], tiny_models: Path, photos: Path
) -> None:
    place = photos.parent
    # The same photo twice: the one that the side-car is killed in must come out as the other.
    for photo in sorted(photos.iterdir())[2:]:
        photo.unlink()
    shutil.copy(photos / "0.png", photos / "1.png")
    command = ["batch", "edit", "--photos", "photos", "--out", "out", "--concurrency", "1", "--json"]
    command += ["--steps", str(STEPS), "--checkpoint-every", "4"]
    triton = launch(tiny_models)
    with LocalSidecar(program=SIDECAR) as first:
        process = start(place, command, url=triton.url, refine_url=first.url)
        wait_for_file(process, place, "out/*/reconstruction.jpg")
        os.kill(first.pid, signal.SIGKILL)
    with LocalSidecar(port=int(first.url.rpartition(":")[2]), program=SIDECAR):
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["photos"] == {"pending": 0, "done": 2, "failed": 0}
    undisturbed, killed = (Inversion.load(place / f"out/{n}.png/photo.inversion.safetensors") for n in range(2))
    assert_same(killed, undisturbed, steps=STEPS)
