"""Refinements that are stopped: by Ctrl-C, by a server that goes away, by a full disk."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from client import Inversion, cli
from tests.client.fakes import FakeTriton, serving
from tests.client.running import FILE, RESULTS, disk_is_full, failed, files, opened
from tests.client.sidecar_fakes import STEPS, FakeSidecar


@pytest.mark.usefixtures("place")
def test_a_side_car_that_stays_away_leaves_the_last_checkpoint(capsys, sidecar):
    sidecar.on_step = lambda step, context: (
        step < 15 or len(sidecar.requests) > 99 or context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
    )
    assert "went away; the inversion of step 10 is in" in failed(
        capsys, "invert", "me.png", "--checkpoint-every", "10", "--patience", "0.3", code=3
    )
    assert len(sidecar.requests) > 1
    assert Inversion.load(FILE).refinement.step == 10


def test_a_triton_that_stays_away_at_the_end_leaves_the_refined_inversion(place, capsys, sidecar):
    triton = serving(FakeTriton())
    url = triton.__enter__()
    stopped = []

    def stop(step, _context):
        if step == STEPS and not stopped:
            stopped.append(step)
            triton.__exit__(None, None, None)

    sidecar.on_step = stop
    message = failed(capsys, "invert", "me.png", "--url", url, "--patience", "0.5", code=3)
    assert f"no Triton server answers at {url}" in message
    assert f"the refined inversion is in {FILE}, without its picture\n" in message
    assert files(place) == RESULTS[:3]
    assert Inversion.load(FILE).refinement.reason == "steps"


def test_a_triton_that_comes_back_renders(place, sidecar):
    triton = serving(FakeTriton())
    url = triton.__enter__()
    port = int(url.rpartition(":")[2])
    again = serving(FakeTriton(), port)
    timers = []

    def restart(step, _context):
        if step == STEPS and not timers:
            triton.__exit__(None, None, None)
            timers.append(threading.Timer(1.0, again.__enter__))
            timers[0].start()

    sidecar.on_step = restart
    try:
        assert cli.main(["invert", "me.png", "--edit", "age=1", "--url", url, "--patience", "120"]) == 0
    finally:
        timers[0].join()
        again.__exit__(None, None, None)
    assert "out/me/me.age+1.png" in files(place)


def test_a_full_disk_at_the_end_keeps_what_it_can(place, capsys, monkeypatch):
    disk_is_full(monkeypatch)
    assert "no space left on device; the refined inversion is in" in failed(capsys, "invert", "me.png")
    assert files(place) == RESULTS[:4]
    assert Inversion.load(FILE).refinement.reason == "steps"


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["me.png", "other.jpg", "notes.jpg"])
def test_a_preview_replaces_previews_only(name, capsys):
    Image.new("RGB", (300, 300)).save("other.jpg")
    Path("notes.jpg").write_text("not a picture")
    before = Path(name).read_bytes()
    assert f"cannot write `{name}`: it already exists, and is no preview" in failed(
        capsys, "invert", "me.png", "--preview", name
    )
    assert Path(name).read_bytes() == before
    Image.new("RGB", (256, 256)).save("other.jpg")
    assert cli.main(["invert", "me.png", "--preview", "other.jpg"]) == 0


@pytest.mark.usefixtures("place")
def test_a_preview_that_cannot_be_written_costs_no_checkpoint(capsys):
    assert "`installed`: it is a directory" in failed(
        capsys, "invert", "me.png", "--checkpoint-every", "4", "--preview", "installed"
    )
    assert Inversion.load(FILE).refinement.step == 4


def interrupt(place: Path, sidecar: FakeSidecar, *arguments: str, at: int, times: int = 1, number: int = signal.SIGINT):
    """Run a command and press Ctrl-C once it has shown the preview of a step, behind which the side-car stops."""
    sidecar.on_step = lambda step, _context: step <= at or sidecar.over.wait(60)
    sidecar.over.clear()
    preview = place / "installed/live.jpg"
    preview.unlink(missing_ok=True)
    command = [sys.executable, "-m", "client", *arguments, "--preview", str(preview)]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not preview.is_file() or abs(opened(preview).getpixel((0, 0))[0] - at) > 3:
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(times):
            process.send_signal(number)
        output, error = process.communicate()
    assert sidecar.over.wait(60)
    sidecar.on_step = lambda _step, _context: None
    return process.returncode, output, error


def test_ctrl_c_leaves_the_last_checkpoint_and_refine_continues(place, sidecar):
    code, output, error = interrupt(place, sidecar, "invert", "me.png", "--checkpoint-every", "10", at=20)
    assert (code, output) == (130, "")
    sentence = f"error: interrupted; the inversion of step 20 is in {FILE}: continue with `client refine {FILE}`\n"
    assert error == sentence
    # With its picture.
    assert files(place) == RESULTS[:4]
    assert Inversion.load(FILE).refinement.step == 20
    code, output, error = interrupt(place, sidecar, "refine", FILE, "--json", at=30)
    assert code == 130
    assert json.loads(output)["error"]["kind"] == "Interrupted"
    assert "step 30" in error
    assert cli.main(["refine", FILE]) == 0
    again = Inversion.load(FILE)
    assert cli.main(["invert", "me.png", "--checkpoint-every", "10", "--force"]) == 0
    alone = Inversion.load(FILE)
    np.testing.assert_array_equal(again.f, alone.f)
    assert again.refinement.encode() == alone.refinement.encode()


def test_ctrl_c_before_the_first_checkpoint(place, sidecar):
    code, _, error = interrupt(place, sidecar, "invert", "me.png", "--steps", "30", at=10)
    assert code == 130
    assert "the inversion of step 0 is in" in error
    start = Inversion.load(FILE)
    assert (start.refinement.step, start.method) == (0, "encoder")
    before = Path(FILE).read_bytes()
    code, _, error = interrupt(place, sidecar, "refine", FILE, at=20)
    assert (code, error) == (130, "error: interrupted\n")
    assert Path(FILE).read_bytes() == before
    assert cli.main(["refine", FILE]) == 0
    assert Inversion.load(FILE).refinement.step == 30


@pytest.mark.parametrize("times", [2, 5])
def test_more_than_one_ctrl_c_leaves_a_whole_file_or_none(place, sidecar, times):
    code, output, error = interrupt(place, sidecar, "invert", "me.png", "--checkpoint-every", "10", at=20, times=times)
    assert code in (130, -signal.SIGINT)
    assert output == ""
    if "step 20" in error:
        assert files(place) == RESULTS[:4]
        assert Inversion.load(FILE).refinement.step == 20
    else:
        # The second came before the first was dealt with.
        assert [name for name in files(place) if (place / name).is_file()] == []


def test_progress_shows_only_on_a_terminal(place):
    import pty
    import termios

    seen = {}
    for extra in (("--force",), ("--json", "--force")):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 200))
        arguments = [sys.executable, "-m", "client", "invert", "me.png", *extra]
        done = subprocess.run(arguments, cwd=place, stdout=subprocess.PIPE, stderr=theirs, check=True)
        # What was written is lost when the last writer closes, so ours is held open.
        os.set_blocking(ours, False)
        shown = io.BytesIO()
        try:
            while data := os.read(ours, 100_000):
                shown.write(data)
        except BlockingIOError:
            pass
        os.close(theirs)
        os.close(ours)
        seen[extra] = shown.getvalue(), done.stdout
    text = seen["--force",][0].decode()
    assert "refining" in text
    assert re.search(r"total=[\d.]+, mse=[\d.]+, perceptual=0\.5, f=0\.25, p_norm=0\.125", text)
    assert b"refining" not in seen["--json", "--force"][0]
    assert json.loads(seen["--json", "--force"][1])["method"] == "refined:default"
