"""Refinement from the command line, on real servers, and on tiny ones that are killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import Inversion, Inverter
from server.sidecar import LocalSidecar
from server.triton import LocalTriton
from server_tests.chaos import tiny
from server_tests.client.commands import client, report, start, with_photo

# Of a tiny side-car, 0.02 s each: enough to be killed in.
STEPS = 400
FILE = "out/astronaut/astronaut.inversion.safetensors"
INVERT = ["invert", "astronaut.png", "--crop", "120,20,160"]
LONG = [*INVERT, "--steps", str(STEPS), "--checkpoint-every", "4"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return with_photo(tmp_path)


@pytest.mark.parametrize(
    ("options", "cut"),
    [(["--method", "im2s"], 4), (["--method", "idinvert"], 4), (["--cut", "8"], 8), (["--cut", "8", "--clip", "2"], 8)],
    ids=["im2s", "idinvert", "bdinvert8", "bdinvert8-clip"],
)
@pytest.mark.slow
def test_every_method_is_refined(triton: LocalTriton, sidecar: LocalSidecar, place: Path, options: list[str], cut: int):
    # After one step of the whole of f, the start may still be the better one, and be given.
    steps = 1 if cut == 4 else 2
    command = [*INVERT, "--steps", str(steps), "--edit", "age=1", *options]
    done = client(place, *command, "--json", url=triton.url, refine_url=sidecar.url)
    # The face may still be another one, and then a warning says that much of the photo's stays.
    assert done.returncode == 0, done.stderr
    assert all("% of the face stays as it is: " in line for line in done.stderr.splitlines()), done.stderr
    made = json.loads(done.stdout)
    terms = made["refinement"]["terms"]
    assert (made["cut"], made["refinement"]["step"]) == (cut, steps)
    assert (terms["domain"] > 0) == ("idinvert" in options)
    inversion = Inversion.load(place / FILE)
    assert np.array_equal(inversion.f, inversion.f_o) == (cut == 4)
    # What Triton shows of the code is what the side-car judged.
    assert made["refinement"]["metrics"]["psnr"] > 5


class Client:
    """A command in a folder, watched through the preview that it replaces."""

    def __init__(self, place: Path, *arguments: str, url: str, refine_url: str) -> None:
        self.preview = place / "live.jpg"
        self.preview.unlink(missing_ok=True)
        options = ["--preview", str(self.preview), "--json"]
        self.process = start(place, [*arguments, *options], url=url, refine_url=refine_url)

    def wait_for_previews(self, count: int) -> None:
        """Wait until so many previews were written, one for each checkpoint."""
        seen: set[int] = set()
        while len(seen) < count:
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate())
            if self.preview.exists():
                seen.add(self.preview.stat().st_mtime_ns)
            time.sleep(0.01)

    def done(self) -> tuple[int, dict, str]:
        """Wait for the end: the exit code, the report, and what went to stderr."""
        output, error = self.process.communicate()
        return self.process.returncode, json.loads(output), error


@pytest.fixture
def run(place: Path) -> Iterator[Callable[..., Client]]:
    """Start a command; killed when the test is over."""
    started: list[Client] = []

    def start(*arguments: str, url: str, refine_url: str) -> Client:
        started.append(Client(place, *arguments, url=url, refine_url=refine_url))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def assert_same(one: Inversion, other: Inversion, *, steps: int) -> None:
    assert one.refinement.step == other.refinement.step == steps
    for name in ("f", "w_m_plus"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4, err_msg=name)
    assert one.refinement.metrics.psnr == pytest.approx(other.refinement.metrics.psnr, abs=0.01)


def test_invert_refines(place, triton, sidecar):
    report(place, *INVERT, "--steps", "4", url=triton.url, refine_url=sidecar.url)
    inversion = Inversion.load(place / FILE)
    with Inverter(triton.url) as inverter:
        start = inverter.invert(place / "astronaut.png", inversion.frame)
        rendered, before = inverter.render(inversion), inverter.render(start.inversion.editable)
    assert inversion.faithful is None
    assert not np.array_equal(inversion.w_m_plus, start.inversion.w_m_plus)
    np.testing.assert_array_equal(inversion.f_o, start.inversion.f_o)
    assert (inversion.method, inversion.refinement.reason) == ("refined:default", "steps")
    target = inversion.target_pixels().astype(float)
    assert target.shape == (1024, 1024, 3)
    with Image.open(place / "out/astronaut/astronaut.reconstruction.png") as image:
        assert np.abs(np.asarray(image).astype(int) - rendered).max() <= 2
    assert ((rendered - target) ** 2).mean() < ((before - target) ** 2).mean()
    # The side-car judges what it renders itself, Triton shows it: they must be the same picture.
    psnr = 10 * np.log10(255**2 / ((rendered - target) ** 2).mean())
    assert inversion.refinement.metrics.psnr == pytest.approx(psnr, abs=0.1)


@pytest.fixture
def both(
    tiny_models: Path, launch: Callable[..., LocalTriton]
) -> Iterator[Callable[..., tuple[LocalTriton, LocalSidecar]]]:
    """Start a Triton and a side-car of tiny models at once; stopped when the test is over."""
    started: list[LocalSidecar] = []

    def start(*, grpc_port: int = 0, port: int = 0) -> tuple[LocalTriton, LocalSidecar]:
        started.append(LocalSidecar(port=port, program=tiny.SIDECAR))
        started[-1].launch()
        return launch(tiny_models, grpc_port=grpc_port), started[-1].ready()

    yield start
    for sidecar in started:
        sidecar.stop()


@pytest.fixture(scope="module")
def calm(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Inversion:
    """What tiny servers make of the photo where nothing disturbs them."""
    place = with_photo(tmp_path_factory.mktemp("calm"))
    with (
        LocalTriton(tiny_models, http_port=None, metrics_port=None, grace=0) as triton,
        LocalSidecar(program=tiny.SIDECAR) as sidecar,
    ):
        code, _, error = Client(place, *LONG, url=triton.url, refine_url=sidecar.url).done()
    assert (code, error) == (0, "")
    return Inversion.load(place / FILE)


def test_ctrl_c_leaves_a_file_and_refine_continues(calm, place, run, both):
    triton, sidecar = both()
    client = run(*LONG, url=triton.url, refine_url=sidecar.url)
    client.wait_for_previews(2)
    client.process.send_signal(signal.SIGINT)
    code, report, error = client.done()
    assert code == 130
    assert f"`client refine {FILE}`" in error
    assert report["error"]["kind"] == "Interrupted"
    left = Inversion.load(place / FILE)
    assert left.refinement.step in range(1, STEPS)
    left = {path.name for path in (place / "out/astronaut").iterdir()}
    assert left == {Path(FILE).name, "astronaut.reconstruction.png"}
    code, report, error = run("refine", FILE, url=triton.url, refine_url=sidecar.url).done()
    assert (code, error) == (0, "")
    assert_same(Inversion.load(place / FILE), calm, steps=STEPS)
    assert (place / report["reconstruction"]).is_file()


def test_both_servers_killed_in_the_middle(calm, place, run, both):
    triton, sidecar = both()
    client = run(*LONG, url=triton.url, refine_url=sidecar.url)
    client.wait_for_previews(1)
    os.kill(triton.pid, signal.SIGKILL)
    # The refinement does not need Triton.
    client.wait_for_previews(2)
    os.kill(sidecar.pid, signal.SIGKILL)
    triton.stop()
    sidecar.stop()
    both(grpc_port=port(triton.url), port=port(sidecar.url))
    code, report, error = client.done()
    assert (code, error) == (0, "")
    assert_same(Inversion.load(place / FILE), calm, steps=STEPS)
    assert (place / report["reconstruction"]).is_file()


def port(url: str) -> int:
    return int(url.rpartition(":")[2])
