"""The command line on the real server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient import grpc

from client import Inversion
from client.files import direction as directions
from client.files import tensors
from server.triton import LocalTriton
from server_tests import tiny_repository as tiny
from server_tests.client.commands import client, report, start, with_photo
from server_tests.conftest import built
from server_tests.processes import eventually

INVERT = ("invert", "--fast", "astronaut.jpg")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return with_photo(tmp_path, "astronaut.jpg")


@pytest.fixture(scope="module")
def inverted(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with an inversion, and its report."""
    place = with_photo(tmp_path_factory.mktemp("inverted"), "astronaut.jpg")
    return place, report(place, *INVERT, url=triton.url)


def own_direction(place: Path, generator: str) -> Path:
    path = place / "own.safetensors"
    vector = np.eye(1, 512, dtype=np.float32)[0]
    tensors.save(path, {"direction": vector}, {"name": "own", "generator": generator, "scale": "5"})
    return path


def test_invert_then_edit(inverted: tuple[Path, dict[str, Any]], triton: LocalTriton) -> None:
    place, made = inverted
    for key in ("inversion", "reconstruction", "sheet"):
        assert (place / made[key]).is_file()
    with Image.open(place / made["reconstruction"]) as image:
        assert (image.size, image.mode) == ((1024, 1024), "RGB")
    own = own_direction(place, Inversion.load(place / made["inversion"]).generator)
    known = directions.names("ffhq")[:1]
    for name in [str(own), *known]:
        edit = ["edit", made["inversion"], "--direction", name, "--strength", "-3", "--strength", "3"]
        edits = report(place, *edit, url=triton.url)["edits"]
        assert [edit["strength"] for edit in edits] == [-3, 3]
        one, other = (np.asarray(Image.open(place / edit["image"]).convert("L"), dtype=float) for edit in edits)
        assert np.abs(one - other).mean() > 0.1


def test_invert_with_edits_of_every_installed_direction(place: Path, triton: LocalTriton) -> None:
    names = directions.names("ffhq")
    if not names:
        pytest.skip("no directions are installed")
    edits = [word for name in names for word in ("--edit", f"{name}=2")]
    made = report(place, *INVERT, *edits, url=triton.url)
    assert len(made["edits"]) == len(names)
    assert all((place / edit["image"]).is_file() for edit in made["edits"])


def test_generate_twice(place: Path, triton: LocalTriton) -> None:
    pictures = []
    for folder in ("one", "two"):
        made = report(place, "generate", "--seed", "7", "--out", folder, url=triton.url)
        pictures.append((place / made["image"]).read_bytes())
    assert pictures[0] == pictures[1]


def test_status(place: Path, triton: LocalTriton) -> None:
    assert report(place, "status", url=triton.url)["usable"] is True
    assert client(place, "status", url=triton.url).stdout.count(" ready ") >= 8


def test_an_inversion_of_another_generator(
    inverted: tuple[Path, dict[str, Any]], place: Path, triton: LocalTriton
) -> None:
    ours = Inversion.load(inverted[0] / inverted[1]["inversion"])
    Inversion(**{**vars(ours), "generator": "0" * 16}).save(place / "foreign")
    own = own_direction(place, "0" * 16)
    done = client(place, "edit", "foreign", "--direction", str(own), "--strength", "1", url=triton.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "0" * 16 in done.stderr
    assert ours.generator in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_without_the_models(place: Path, launch: Callable[..., LocalTriton], repository: Path) -> None:
    tiny.add_one(repository)
    running = launch(repository)
    done = client(place, *INVERT, url=running.url)
    assert (done.returncode, done.stdout) == (3, "")
    warning, error = done.stderr.splitlines()
    assert "no face finder" in warning
    assert "does not serve the model ffhq_invert" in error
    assert client(place, "status", url=running.url).returncode == 3
    assert not (place / "out").exists()


def answered(asking: grpc.InferenceServerClient, model: str, headers: dict[str, str]) -> int:
    count: int = asking.get_inference_statistics(model, headers=headers).model_stats[0].inference_count
    return count


def test_a_server_killed_in_the_middle(
    inverted: tuple[Path, dict[str, Any]], launch: Callable[..., LocalTriton]
) -> None:
    place, made = inverted
    running = launch(built(), models=["default"])
    own = own_direction(place, made["generator"])
    strengths = [word for number in range(64) for word in ("--strength", str(number / 10))]
    before = sorted((place / "out").rglob("*"))
    edit = ["edit", made["inversion"], "--direction", str(own), *strengths]
    with start(place, edit, url=running.url) as process, grpc.InferenceServerClient(running.url) as asking:
        # Of the eight requests, the first is answered.
        assert eventually(lambda: answered(asking, "ffhq_edit", running.admin_headers) >= 1)
        os.kill(running.pid, signal.SIGKILL)
        error = process.communicate()[1]
    assert process.returncode == 3
    assert error.startswith("error: no Triton server answers")
    assert error.count("\n") == 1
    assert sorted((place / "out").rglob("*")) == before
