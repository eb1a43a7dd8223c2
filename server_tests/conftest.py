"""Fixtures: servers of the project's own models, one for all tests, and servers of tiny repositories."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient import grpc

from assets.paths import build_dir, project_root
from server.sidecar import LocalSidecar
from server.triton import LocalTriton
from server_tests.chaos import tiny

# On a GPU, a job would be done before a test can interrupt it.
SIDECAR = ["--device=cpu", "--compile=off"]


def unbuilt(repository: Path) -> list[str]:
    """Models of a repository that have no version folder, or one without a graph."""
    names = []
    for config in sorted(repository.glob("*/config.pbtxt")):
        is_ensemble = "ensemble_scheduling" in config.read_text()
        pattern = "[0-9]*" if is_ensemble else "[0-9]*/model.*"
        if not any(config.parent.glob(pattern)):
            names.append(config.parent.name)
    return names


def built() -> Path:
    """The project's own model repository; if it is not built, the test is skipped."""
    repository = project_root() / "model_repository"
    if not any(repository.glob("*/config.pbtxt")):
        pytest.skip("model_repository is empty: run python -m export repository")
    if missing := unbuilt(repository):
        pytest.skip(f"model_repository has no graph of {', '.join(missing)}: run python -m export graphs")
    return repository


@pytest.fixture(scope="session")
def triton() -> Iterator[LocalTriton]:
    """A running server of the project's own model repository."""
    with LocalTriton(built(), timeout=600, grace=0) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the default cut's models, each tiny: for servers that a test kills."""
    folder = tmp_path_factory.mktemp("models")
    tiny.repository(folder)
    return folder


@pytest.fixture(scope="session")
def generator() -> Path:
    """The weights of the generator that the side-car loads; without them and the judges, the test is skipped."""
    path = build_dir() / "weights/ffhq/generator.safetensors"
    if not path.exists() or not (build_dir() / ".judges").exists():
        pytest.skip("the side-car has no weights: run python -m export fetch --judges")
    return path


@pytest.fixture(scope="session")
def sidecar(generator: Path) -> Iterator[LocalSidecar]:
    """A running side-car of the project's own generator."""
    assert generator.is_file()
    with LocalSidecar(arguments=SIDECAR) as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty model repository."""
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


@pytest.fixture
def launch() -> Iterator[Callable[..., LocalTriton]]:
    """Start a server as `LocalTriton` does, without HTTP and metrics; stopped at once when the test is over."""
    started: list[LocalTriton] = []

    def start(repository: Path, **options: Any) -> LocalTriton:
        running = LocalTriton(repository, **{"http_port": None, "metrics_port": None, "grace": 0, **options})
        started.append(running)
        return running.start()

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[LocalTriton], grpc.InferenceServerClient]]:
    """Open a gRPC client; closed when the test is over."""
    clients: list[grpc.InferenceServerClient] = []

    def open_client(running: LocalTriton) -> grpc.InferenceServerClient:
        clients.append(grpc.InferenceServerClient(running.url))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def fake_tritonserver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script on PATH as ``tritonserver``."""

    def write(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "tritonserver"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return write
