"""Commands of the client in a folder with the example photo."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from client import cli


def with_photo(folder: Path, name: str = "astronaut.png") -> Path:
    """Put the example photo into a folder; returns the folder."""
    Image.fromarray(data.astronaut()).save(folder / name, quality=95)
    return folder


def start(place: Path, arguments: Sequence[str], *, url: str, refine_url: str = "") -> subprocess.Popen[str]:
    """Start a command in a folder."""
    environment = {**os.environ, "UNALIGNED_URL": url, "UNALIGNED_REFINE_URL": refine_url}
    return subprocess.Popen(
        [sys.executable, "-m", "client", *arguments],
        cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def client(place: Path, *arguments: str, url: str, refine_url: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a folder to its end, in this process, which has imported everything already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(place)
        patch.setenv("UNALIGNED_URL", url)
        patch.setenv("UNALIGNED_REFINE_URL", refine_url)
        code = cli.main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def report(place: Path, *arguments: str, url: str, refine_url: str = "") -> dict[str, Any]:
    """The JSON report of a command that must succeed and say nothing on stderr."""
    done = client(place, *arguments, "--json", url=url, refine_url=refine_url)
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def wait_for_file(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until a running command has written a file."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
