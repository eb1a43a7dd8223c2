"""Servers with a part that is dead, stopped or stuck, and with one that only takes long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc

from assets.paths import project_root
from server import guard
from server.connection import connect, headers
from server.secrets import make
from server_tests import tiny_repository as tiny

# What the model does is its input: 1 sleeps in the request; 2 answers, and then holds Python's lock; 3 computes.
MODEL = """
import ctypes, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        what = np.from_dlpack(request.inputs()[0]).ravel()[0]
        if what == 1:
            time.sleep(1000)
        if what == 2:
            threading.Timer(0.5, ctypes.PyDLL(None).sleep, [1000]).start()
        end = time.monotonic() + 8
        while what == 3 and time.monotonic() < end:
            pass
        y = np.full((1, 4), what, np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", y)])
"""
SLEEP, HOLD, COMPUTE = 1, 2, 3


@pytest.fixture
def moody(repository: Path) -> Path:
    four = ("FP32", [1, 4])
    version = tiny.write(repository, "moody", {"x": four}, {"y": four}, backend="python")
    (version / "model.py").write_text(MODEL)
    tiny.add_one(repository)
    return repository


@contextmanager
def served(repository: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "server", "start", "--repository", str(repository), "--grpc-port", "0"]
    with subprocess.Popen(
        [*command, "--grace", "0", "--json", *options],
        cwd=project_root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def ask(url: str, what: int, *, secrets: Path | None = None) -> np.ndarray:
    x = grpc.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.full((1, 4), what, np.float32))
    with connect(url, secrets) as client:
        return client.infer("moody", [x], headers=headers(secrets), client_timeout=60).as_numpy("y")


@pytest.mark.parametrize(("number", "says"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "did not react")])
def test_a_backend_process_that_is_killed_or_stopped_ends_the_server(
    repository: Path, number: signal.Signals, says: str
) -> None:
    tiny.add_one(repository)
    with served(repository) as (process, where):
        stubs = [pid for pid, (_, name) in guard.parts(int(where["pid"])).items() if name]
        assert len(stubs) == 1
        # The guard looks twice a second, and knows names from then on.
        time.sleep(2)
        os.kill(stubs[0], number)
        said = process.communicate(timeout=60)[1]
        assert said.startswith(f"error: Triton was stopped because the process of model `add_one` {says}; see ")
        assert process.returncode == 1


@pytest.mark.parametrize(("what", "hardened"), [(SLEEP, False), (HOLD, False), (HOLD, True)])
def test_a_stuck_model_ends_the_server(moody: Path, tmp_path: Path, what: int, hardened: bool) -> None:
    secrets = tmp_path / "secrets/server" if hardened else None
    if hardened:
        make(tmp_path / "secrets")
    with served(moody, "--patience", "3", *(["--secrets", str(secrets)] if secrets else [])) as (process, where):
        np.testing.assert_array_equal(ask(where["grpc"], 0, secrets=secrets), [[0] * 4])
        if what == SLEEP:
            with pytest.raises(grpc.InferenceServerException):
                ask(where["grpc"], what)
        else:
            ask(where["grpc"], what, secrets=secrets)
        said = process.communicate(timeout=60)[1]
        assert said.startswith("error: Triton was stopped because the process of model `moody` did not react; see ")
        assert process.returncode == 1


def test_a_stuck_model_starts_the_servers_again(moody: Path) -> None:
    with served(moody, "--patience", "3", "--restart") as (process, where):
        ask(where["grpc"], HOLD)
        assert process.stdout
        again = json.loads(process.stdout.readline())
        assert (again["grpc"], again["pid"] != where["pid"]) == (where["grpc"], True)
        np.testing.assert_array_equal(ask(again["grpc"], 0), [[0] * 4])
        process.terminate()
        assert process.communicate(timeout=60)[1].endswith("\nThe servers are started again.\n")
        assert process.returncode == 143


def test_a_long_request_is_no_stuck_model(moody: Path) -> None:
    with served(moody, "--patience", "3") as (process, where):
        start = time.monotonic()
        np.testing.assert_array_equal(ask(where["grpc"], COMPUTE), [[COMPUTE] * 4])
        assert time.monotonic() - start >= 8
        assert process.poll() is None
        process.terminate()
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 143
