"""The command line against the real server, as typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import Inversion
from client.files import direction as directions
from server.triton import LocalTriton
from server_tests import tiny_repository as tiny

data = pytest.importorskip("skimage.data", reason="scikit-image has the photo")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.jpg", quality=95)
    return tmp_path


def client(place: Path, *arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    environment = {**os.environ, "UNALIGNED_URL": url}
    command = [sys.executable, "-m", "client", *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def own_direction(place: Path, generator: str) -> Path:
    from client.files import tensors

    path = place / "own.safetensors"
    vector = np.eye(1, 512, dtype=np.float32)[0]
    tensors.save(path, {"direction": vector}, {"name": "own", "generator": generator, "scale": "5"})
    return path


def test_invert_then_edit(place, triton):
    done = client(place, "invert", "--fast", "astronaut.jpg", "--json", url=triton.url)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    for key in ("inversion", "reconstruction", "sheet"):
        assert (place / report[key]).is_file()
    with Image.open(place / report["reconstruction"]) as image:
        assert (image.size, image.mode) == ((1024, 1024), "RGB")
    inversion = Inversion.load(place / report["inversion"])
    own = own_direction(place, inversion.generator)
    known = directions.names("ffhq")[:1]
    for name in [str(own), *known]:
        arguments = ["edit", report["inversion"], "--direction", name, "--strength", "-3", "--strength", "3", "--json"]
        done = client(place, *arguments, url=triton.url)
        assert (done.returncode, done.stderr) == (0, "")
        edits = json.loads(done.stdout)["edits"]
        assert [edit["strength"] for edit in edits] == [-3, 3]
        one, other = (np.asarray(Image.open(place / edit["image"]).convert("L"), dtype=float) for edit in edits)
        assert np.abs(one - other).mean() > 0.1


def test_invert_with_edits_of_every_installed_direction(place, triton):
    names = directions.names("ffhq")
    if not names:
        pytest.skip("no directions are installed")
    edits = [word for name in names for word in ("--edit", f"{name}=-2,2")]
    done = client(place, "invert", "--fast", "astronaut.jpg", *edits, "--json", url=triton.url)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert len(report["edits"]) == 2 * len(names)
    assert all((place / edit["image"]).is_file() for edit in report["edits"])


def test_generate_twice(place, triton):
    pictures = []
    for folder in ("one", "two"):
        done = client(place, "generate", "--seed", "7", "--out", folder, "--json", url=triton.url)
        assert (done.returncode, done.stderr) == (0, "")
        pictures.append((place / json.loads(done.stdout)["image"]).read_bytes())
    assert pictures[0] == pictures[1]


def test_status(place, triton):
    done = client(place, "status", "--json", url=triton.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["usable"] is True
    assert client(place, "status", url=triton.url).stdout.count(" ready ") >= 8


def test_an_inversion_of_another_generator(place, triton):
    done = client(place, "invert", "--fast", "astronaut.jpg", "--json", url=triton.url)
    report = json.loads(done.stdout)
    found = Inversion.load(place / report["inversion"])
    Inversion(**{**vars(found), "generator": "0" * 16}).save(place / "foreign")
    own = own_direction(place, "0" * 16)
    done = client(place, "edit", "foreign", "--direction", str(own), "--strength", "1", url=triton.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "0" * 16 in done.stderr
    assert found.generator in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_without_the_models(place, launch, repository):
    tiny.add_one(repository)
    running = launch(repository)
    done = client(place, "invert", "--fast", "astronaut.jpg", url=running.url)
    assert (done.returncode, done.stdout) == (3, "")
    assert "does not serve the model ffhq_invert" in done.stderr
    assert done.stderr.count("\n") == 1
    assert client(place, "status", url=running.url).returncode == 3
    assert not (place / "out").exists()


def test_a_server_killed_in_the_middle(place, launch):
    from assets.paths import project_root
    from server_tests.conftest import unbuilt

    models = project_root() / "model_repository"
    if unbuilt(models) or not any(models.glob("*/config.pbtxt")):
        pytest.skip("model_repository is not built: run python -m export graphs")
    running = launch(models)
    own = own_direction(place, "0" * 16)
    first = client(place, "invert", "--fast", "astronaut.jpg", "--json", url=running.url)
    found = json.loads(first.stdout)
    own = own_direction(place, found["generator"])
    strengths = [word for number in range(64) for word in ("--strength", str(number / 10))]
    command = [sys.executable, "-m", "client", "edit", found["inversion"], "--direction", str(own), *strengths]
    before = sorted((place / "out").rglob("*"))
    environment = {**os.environ, "UNALIGNED_URL": running.url}
    with subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as process:
        # The first of the eight requests is under way when the connection is there.
        wait_for_requests(running, 1)
        os.kill(running.pid, signal.SIGKILL)
        error = process.communicate()[1]
    assert process.returncode == 3
    assert error.startswith("client: No Triton server answers")
    assert error.count("\n") == 1
    assert sorted((place / "out").rglob("*")) == before


def wait_for_requests(running: LocalTriton, count: int) -> None:
    """Wait until the server has finished this many edits."""
    import time

    from tritonclient import grpc

    with grpc.InferenceServerClient(running.url) as asking:
        while True:
            found = asking.get_inference_statistics("ffhq_edit").model_stats[0]
            if found.inference_count >= count:
                return
            time.sleep(0.05)
