from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import Inversion, cli
from client.files.sheet import TILE
from tests.client.fakes import GENERATOR, SIDE, FakeTriton, direction_file, serving
from tests.client.running import disk_is_full, failed, files, opened, reported


@pytest.fixture(scope="module")
def url():
    with serving(FakeTriton()) as address:
        yield address


def test_invert_with_edits(place, capsys):
    assert cli.main(["invert", "--fast", "me.png", "--edit", "age=-3,3", "--edit", "smile=1.5"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    expected = [
        "out",
        "out/me",
        "out/me/me.age+3.png",
        "out/me/me.age-3.png",
        "out/me/me.inversion.safetensors",
        "out/me/me.reconstruction.png",
        "out/me/me.sheet.png",
        "out/me/me.smile+1.5.png",
    ]
    assert files(place) == expected
    for name in expected[2:]:
        assert name in captured.out
    inversion = Inversion.load("out/me/me.inversion.safetensors")
    assert (inversion.generator, inversion.photo_name) == (GENERATOR, "me.png")
    assert opened("out/me/me.reconstruction.png").size == (SIDE, SIDE)
    page = opened("out/me/me.sheet.png")
    assert page.width > 5 * TILE
    assert page.height < 2 * TILE


def test_the_sheet_is_written_without_edits_too(place, capsys):
    report = reported(capsys, "invert", "--fast", "me.png", "--out", "here/there", "--crop", "1,2,60")
    assert report["edits"] == []
    assert report["crop"] == [1, 2, 60]
    assert report["photo"]["size"] == [120, 90]
    assert report["generator"] == GENERATOR
    for key in ("inversion", "reconstruction", "sheet"):
        assert Path(report[key]).is_file()
        assert Path(report[key]).parent == Path("here/there")
    assert len(files(place)) == 5


def test_finished_results_are_replaced_by_force_only(place, capsys):
    assert cli.main(["invert", "--fast", "me.png", "--crop", "0,0,20"]) == 0
    capsys.readouterr()
    assert "`out/me/me.inversion.safetensors` already exists: pass --force" in failed(
        capsys, "invert", "--fast", "me.png"
    )
    assert Inversion.load("out/me/me.inversion.safetensors").frame.side == 20
    assert cli.main(["invert", "--fast", "me.png", "--force"]) == 0
    assert Inversion.load("out/me/me.inversion.safetensors").frame.kind == "aligned"
    assert len(files(place)) == 5


def test_edit(place, capsys):
    assert cli.main(["invert", "--fast", "me.png"]) == 0
    capsys.readouterr()
    command = ["edit", "out/me/me.inversion.safetensors", "--direction", "age", "--strength", "-3", "--strength", "3"]
    report = reported(capsys, *command, "--show", "render")
    assert report["sheet"] == "out/me/me.age.sheet.png"
    assert [(edit["direction"], edit["strength"]) for edit in report["edits"]] == [("age", -3.0), ("age", 3.0)]
    dark, light = (np.asarray(opened(edit["image"])).mean() for edit in report["edits"])
    assert (dark, light) == (98, 158)
    assert len(files(place)) == 8


def test_own_directions(place, capsys):
    own = direction_file(place / "installed/own.safetensors", name="my way")
    assert cli.main(["invert", "--fast", "me.png", "--edit", f"{own}=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["edits"][0]["image"] == "out/me/me.my way+2.png"


def test_generate(place, capsys):
    report = reported(capsys, "generate", "--seed", "7")
    assert (report["image"], report["psi"]) == ("out/generated/seed-7.png", 0.7)
    first = Path(report["image"]).read_bytes()
    assert cli.main(["generate", "--seed", "7"]) == 0
    assert Path(report["image"]).read_bytes() == first
    assert files(place) == ["out", "out/generated", "out/generated/seed-7.png"]


def test_directions(place, capsys, monkeypatch):
    assert cli.main(["directions"]) == 0
    text = capsys.readouterr().out
    assert "age" in text
    assert "-3 to 3" in text
    assert "one standard deviation" in text
    report = reported(capsys, "directions")
    assert [direction["name"] for direction in report["directions"]] == ["age", "smile"]
    monkeypatch.setattr("client.files.direction.FOLDER", place / "none")
    assert cli.main(["directions"]) == 0
    assert "No directions" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
def test_status(capsys):
    assert cli.main(["status"]) == 0
    text = capsys.readouterr().out
    assert "triton 2.51.0" in text
    assert GENERATOR in text
    assert re.search(r"ffhq_fine +ready +version 1\n", text)
    report = reported(capsys, "status")
    assert report["usable"] is True
    assert [model["name"] for model in report["models"]][8:] == ["faces"]


@pytest.mark.usefixtures("place")
def test_status_of_a_server_without_a_model(capsys):
    with serving(FakeTriton(missing=("ffhq_edit",))) as other:
        assert cli.main(["status", "--url", other]) == 3
    assert re.search(r"ffhq_edit +missing\n", capsys.readouterr().out)


def broken_files() -> None:
    Path("text.jpg").write_text("hello")
    Path("cut.jpg").write_bytes(jpeg()[:300])
    Path("folder.jpg").mkdir()
    Image.new("RGB", (1, 1)).save("dot.png")
    Image.new("RGB", (20_000, 10)).save("line.png")


def jpeg() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text.jpg"], "not an image"),
        (["cut.jpg"], "truncated"),
        (["folder.jpg"], "directory"),
        (["none.jpg"], "does not exist"),
        (["dot.png"], "1x1"),
        (["line.png"], "20000x10"),
        (["me.png", "--crop", "100,0,50"], "120x90"),
        (["me.png", "--crop", "middle"], "x,y,size"),
        (["me.png", "--edit", "age"], "name=strength"),
        (["me.png", "--edit", "age="], "name=strength"),
        (["me.png", "--edit", "age=much"], "name=strength"),
        (["me.png", "--edit", "age=nan"], "strength"),
        (["me.png", "--edit", "=3"], "name=strength"),
        (["me.png", "--edit", "nose=3"], "age, smile"),
        (["me.png", "--url", "http://there:1"], "host:port"),
        (["me.png", "--timeout", "0"], "timeout"),
        (["me.png", "--timeout", "nan"], "timeout"),
        (["me.png", "--domain", "a/b"], "domain"),
        (["me.png", "--out", "me.png"], "cannot write to `me.png`"),
    ],
)
def test_bad_input_to_invert(place, capsys, arguments, words):
    broken_files()
    before = files(place)
    assert words in failed(capsys, "invert", "--fast", *arguments)
    assert files(place) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["edit", "none", "--direction", "age", "--strength", "1"], "does not exist"),
        (["edit", "me.png", "--direction", "age", "--strength", "1"], "not a safetensors"),
        (["edit", "cut", "--direction", "age", "--strength", "1"], "truncated"),
        (["edit", "other", "--direction", "age", "--strength", "1"], "ffffffffffffffff"),
        (["edit", "good", "--direction", "nose", "--strength", "1"], "age, smile"),
        (["edit", "good", "--direction", "me.safetensors", "--strength", "1"], "does not exist"),
        (["edit", "good", "--direction", "age", "--strength", "inf"], "strength"),
        (["generate", "--seed", "-1"], "seed"),
        (["generate", "--seed", "1", "--psi", "nan"], "psi"),
    ],
)
def test_bad_input_to_the_others(place, capsys, arguments, words):
    report = reported(capsys, "invert", "--fast", "me.png")
    good = Path(report["inversion"])
    found = Inversion.load(good)
    object.__setattr__(found, "generator", "f" * 16)
    found.save("other")
    Path("cut").write_bytes(good.read_bytes()[:-10])
    good.rename("good")
    before = files(place)
    assert words in failed(capsys, *arguments)
    assert files(place) == before


def test_no_server(place, capsys):
    assert "127.0.0.1:1" in failed(capsys, "invert", "--fast", "me.png", "--url", "127.0.0.1:1", code=3)
    assert files(place) == []
    assert cli.main(["status", "--url", "127.0.0.1:1", "--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["kind"] == "ServerUnavailable"


@pytest.mark.parametrize("missing", ["ffhq_invert", "ffhq_edit"])
def test_a_server_without_a_model_leaves_nothing_behind(place, capsys, missing):
    with serving(FakeTriton(missing=(missing,))) as other:
        message = failed(capsys, "invert", "--fast", "me.png", "--edit", "age=1", "--url", other, code=3)
    assert missing in message
    assert files(place) == []


def test_a_server_that_dies_in_the_middle(place):
    server = [sys.executable, "-m", "tests.client.fakes"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True, cwd=root) as dying:
        address = dying.stdout.readline().strip()
        command = [sys.executable, "-m", "client", "invert", "--fast", "me.png", "--url", address]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert dying.returncode == 9
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(rf"error: .*{address}.*[^.]\n", done.stderr)
    assert files(place) == []


def test_a_full_disk_leaves_nothing_behind(place, capsys, monkeypatch):
    disk_is_full(monkeypatch)
    assert "no space left" in failed(capsys, "invert", "--fast", "me.png")
    assert [name for name in files(place) if Path(name).is_file()] == []


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_during_a_request(place, number, code, said):
    waiting, leave = threading.Event(), threading.Event()

    def stall(_servicer, _context):
        waiting.set()
        leave.wait(60)

    with serving(FakeTriton(on_infer=stall)) as other:
        command = [sys.executable, "-m", "client", "invert", "--fast", "me.png", "--url", other]
        with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True) as process:
            assert waiting.wait(60)
            process.send_signal(number)
            error = process.communicate()[1]
        leave.set()
    assert (process.returncode, error) == (code, f"error: {said}\n")
    assert files(place) == []


def test_as_a_module_and_as_a_program(place):
    script = Path(sys.executable).with_name("client")
    commands = [[sys.executable, "-m", "client"]] + ([[str(script)]] if script.exists() else [])
    for command in commands:
        done = subprocess.run([*command, "status", "--json"], cwd=place, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["usable"] is True


def test_json_is_alone_on_stdout_and_progress_shows_only_on_a_terminal(place):
    import pty
    import termios

    arguments = [sys.executable, "-m", "client", "invert", "--fast", "me.png"]
    seen = {}
    for extra in (("--force",), ("--json", "--force")):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        done = subprocess.run([*arguments, *extra], cwd=place, stdout=subprocess.PIPE, stderr=theirs, check=True)
        # What was written is lost when the last writer closes, so ours is held open.
        os.set_blocking(ours, False)
        try:
            shown = os.read(ours, 100_000)
        except BlockingIOError:
            shown = b""
        os.close(theirs)
        os.close(ours)
        seen[extra] = shown, done.stdout
    assert b"inverting" in seen["--force",][0]
    assert b"inverting" not in seen["--json", "--force"][0]
    assert json.loads(seen["--json", "--force"][1])["method"] == "encoder"
