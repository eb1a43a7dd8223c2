"""Refinement from the command line, over a pretended Triton and a pretended side-car."""

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
from client.files.names import part_of
from tests.client.fakes import GENERATOR, SIDE, FakeTriton, direction_file, serving
from tests.client.sidecar_fakes import STEPS, FakeSidecar, from_request, refining

FILE = "out/me/me.inversion.safetensors"
REFINED = "out/me/me.refined.inversion.safetensors"
RESULTS = [
    "out",
    "out/me",
    "out/me/me.inversion.safetensors",
    "out/me/me.reconstruction.png",
    "out/me/me.sheet.png",
]


@pytest.fixture(scope="module")
def url():
    with serving(FakeTriton(cuts=(16, 8, 4))) as address:
        yield address


@pytest.fixture
def sidecar():
    return FakeSidecar()


@pytest.fixture
def place(tmp_path, monkeypatch, url, sidecar):
    """An empty folder to work in, with both servers, a photo, and a direction."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNALIGNED_URL", url)
    monkeypatch.setattr("client.files.direction.FOLDER", tmp_path / "installed")
    direction_file(tmp_path / "installed/ffhq/age.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save("me.png")
    with refining(sidecar) as address:
        monkeypatch.setenv("UNALIGNED_REFINE_URL", address)
        yield tmp_path


def files(place: Path) -> list[str]:
    given = {"me.png", "installed"}
    return sorted(
        str(path.relative_to(place)) for path in place.rglob("*") if path.relative_to(place).parts[0] not in given
    )


def failed(capsys, *arguments: str) -> tuple[int, str]:
    """Run a command that fails: its exit code and its one sentence."""
    code = cli.main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert not captured.err.endswith(".\n")
    return code, captured.err


def abort(step: int, code: grpc.StatusCode, details: str):
    return lambda now, context: now < step or context.abort(code, details)


DIVERGED = abort(27, grpc.StatusCode.FAILED_PRECONDITION, "The loss became NaN.")


def test_invert_refines_and_edits(place, capsys, sidecar):
    assert cli.main(["invert", "me.png", "--edit", "age=-3,3", "--crop", "1,2,60"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    expected = sorted([*RESULTS, "out/me/me.age+3.png", "out/me/me.age-3.png"])
    assert files(place) == expected
    assert f"{STEPS} steps in 20.0 s (all of them)" in captured.out
    for words in (
        "ST-LPIPS (Alex) 0.2500",
        "PSNR 20.50 dB (18.25 dB at full size)",
        "identity 0.750",
        "landmarks 0.0625",
        "a face is found",
    ):
        assert words in captured.out
    inversion = Inversion.load(FILE)
    assert (inversion.generator, inversion.method) == (GENERATOR, "refined:default")
    assert inversion.refinement.reason == "steps"
    assert inversion.target_pixels().shape == (SIDE, SIDE, 3)
    # The pretended fine half answers with the level of what it is given: the refined one's.
    level = np.uint8(np.tanh(inversion.f.mean() + inversion.w_m_plus.std()) * 100 + 128)
    with Image.open("out/me/me.reconstruction.png") as image:
        assert image.size == (SIDE, SIDE)
        assert abs(int(np.asarray(image)[0, 0, 0]) - int(level)) <= 1
    (request,) = sidecar.requests
    assert request.HasField("encoded")
    assert not request.HasField("resume")


def test_every_option_reaches_the_side_car(place, capsys, sidecar):
    arguments = [
        "--preset",
        "paper",
        "--steps",
        "12",
        "--seconds",
        "9.5",
        "--target",
        "0.25",
        "--checkpoint-every",
        "4",
        "--clip",
        "2.5",
    ]
    weights = ["--weight", "mse=2", "--weight", "p_norm=0"]
    preview = ["--preview", "live/now.jpg"]
    assert cli.main(["invert", "me.png", "--json", *arguments, *weights, *preview]) == 0
    report = json.loads(capsys.readouterr().out)
    options = from_request(sidecar.requests[0]).options
    assert (options.preset, options.steps, options.seconds, options.target) == ("paper", 12, 9.5, 0.25)
    assert (options.weights, options.checkpoint_every, options.preview_every) == ({"mse": 2.0, "p_norm": 0.0}, 4, 4)
    assert options.clip == 2.5
    assert report["method"] == "refined:paper"
    refinement = report["refinement"]
    assert (refinement["step"], refinement["steps"], refinement["reason"]) == (12, 12, "steps")
    assert refinement["options"]["weights"] == {"mse": 2.0, "p_norm": 0.0}
    assert refinement["metrics"]["identity"] == 0.75
    assert refinement["terms"]["perceptual"] == 0.5
    with Image.open("live/now.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (256, 256))
    assert sorted(path.name for path in (place / "live").iterdir()) == ["now.jpg"]


@pytest.mark.parametrize(
    ("arguments", "side", "styles", "made"),
    [
        (["--method", "im2s"], 4, 16, "im2s"),
        (["--method", "idinvert"], 4, 16, "idinvert"),
        (["--cut", "8"], 8, 14, "default"),
        (["--cut", "8", "--preset", "paper"], 8, 14, "paper"),
    ],
)
@pytest.mark.usefixtures("place")
def test_a_method_has_its_space_and_its_recipe(capsys, sidecar, arguments, side, styles, made):
    assert cli.main(["invert", "me.png", "--json", "--edit", "age=1", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    (request,) = sidecar.requests
    asked = from_request(request)
    assert asked.options.preset == made
    assert (asked.f.shape, asked.w_m_plus.shape) == ((512, side, side), (styles, 512))
    assert (report["method"], report["cut"]) == (f"refined:{made}", side)
    inversion = Inversion.load(report["inversion"])
    assert (inversion.cut, inversion.w_m_plus.shape) == (side, (styles, 512))
    # And on from there.
    assert cli.main(["refine", report["inversion"], "--preset", made, "--json"]) == 0


@pytest.mark.usefixtures("place")
def test_psp_needs_no_side_car(capsys, sidecar):
    assert cli.main(["invert", "me.png", "--method", "psp", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["method"], report["cut"]) == ("encoder", 4)
    assert sidecar.requests == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "best"], "default, paper, im2s, idinvert"),
        (["--clip", "0"], "bound of P-norm+"),
        (["--method", "psp", "--steps", "3"], "--steps is for the refinement, which --method psp leaves out"),
        (["--method", "im2s", "--cut", "8"], "W+, which has no cut"),
        (["--method", "im2s", "--fast"], "no encoder"),
        (["--steps", "0"], "steps"),
        (["--steps", "10001"], "10000"),
        (["--seconds", "nan"], "seconds"),
        (["--target", "-1"], "distance"),
        (["--weight", "mse"], "name=value"),
        (["--weight", "mse=much"], "name=value"),
        (["--weight", "nose=1"], "p_norm"),
        (["--weight", "mse=-1"], "weight of mse"),
        (["--checkpoint-every", "0"], "checkpoints"),
        (["--patience", "0"], "seconds"),
        (["--patience", "nan"], "seconds"),
        (["--refine-url", "http://there"], "host:port"),
        (["--edit", "nose=3"], "age"),
    ],
)
def test_bad_options_are_told_before_anything_is_asked(place, capsys, sidecar, arguments, words):
    code, message = failed(capsys, "invert", "me.png", *arguments)
    assert code == 2
    assert words in message
    assert files(place) == []
    assert sidecar.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preset", "paper"],
        ["--steps", "3"],
        ["--weight", "mse=1"],
        ["--checkpoint-every", "3"],
        ["--refine-url", "there:1"],
        ["--patience", "3"],
    ],
)
def test_fast_takes_no_options_of_the_refinement(place, capsys, arguments):
    code, message = failed(capsys, "invert", "--fast", "me.png", *arguments)
    assert code == 2
    assert arguments[0] in message
    assert files(place) == []


def test_fast_needs_no_side_car_and_writes_what_it_wrote(place, capsys, sidecar, monkeypatch):
    monkeypatch.setenv("UNALIGNED_REFINE_URL", "127.0.0.1:1")
    assert cli.main(["invert", "--fast", "me.png", "--json"]) == 0
    assert "refinement" not in json.loads(capsys.readouterr().out)
    assert files(place) == RESULTS
    assert b"unaligned.inversion/1" in Path(FILE).read_bytes()
    assert sidecar.requests == []


def test_no_side_car(place, capsys):
    code, message = failed(capsys, "invert", "me.png", "--refine-url", "127.0.0.1:1", "--timeout", "30")
    assert code == 3
    for words in ("127.0.0.1:1", "--fast", "make serve"):
        assert words in message
    assert files(place) == []


def test_an_edit_that_cannot_be_is_told_before_the_refinement(place, capsys, sidecar):
    direction_file(place / "installed/other.safetensors", generator="f" * 16)
    code, message = failed(capsys, "invert", "me.png", "--edit", "installed/other.safetensors=1")
    assert code == 2
    assert "f" * 16 in message
    assert sidecar.requests == []
    assert files(place) == []


def test_a_loss_that_diverges_leaves_the_last_checkpoint(place, capsys, sidecar):
    sidecar.on_step = DIVERGED
    code, message = failed(capsys, "invert", "me.png", "--checkpoint-every", "10")
    assert code == 3
    assert "NaN; the inversion of step 20 is in out/me/me.inversion.safetensors" in message
    assert f"`client refine {FILE}`" in message
    assert files(place) == RESULTS[:3]
    assert Inversion.load(FILE).refinement.step == 20


@pytest.mark.usefixtures("place")
def test_a_request_that_is_refused_leaves_the_start_at_most(capsys, sidecar):
    sidecar.on_step = abort(1, grpc.StatusCode.INVALID_ARGUMENT, "The generator is another one.")
    code, message = failed(capsys, "invert", "me.png")
    assert code == 3
    assert "another one" in message


def test_refine_goes_on_exactly(place, capsys, sidecar):
    assert cli.main(["invert", "me.png", "--out", "alone", "--checkpoint-every", "10", "--weight", "f=2"]) == 0
    sidecar.on_step = DIVERGED
    assert cli.main(["invert", "me.png", "--checkpoint-every", "10", "--weight", "f=2"]) == 3
    sidecar.on_step = lambda _step, _context: None
    capsys.readouterr()
    assert cli.main(["refine", FILE, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    last = from_request(sidecar.requests[-1])
    assert last.resume.step == 20
    assert (last.options.checkpoint_every, last.options.weights) == (10, {"f": 2.0})
    assert report["inversion"] == FILE
    assert report["refinement"]["step"] == STEPS
    assert [name for name in files(place) if name.startswith("out")] == RESULTS
    one, other = Inversion.load("alone/me.inversion.safetensors"), Inversion.load(FILE)
    np.testing.assert_array_equal(one.f, other.f)
    np.testing.assert_array_equal(one.w_m_plus, other.w_m_plus)
    assert one.refinement.encode() == other.refinement.encode()
    for name in ("reconstruction", "sheet"):
        assert (place / f"alone/me.{name}.png").read_bytes() == (place / f"out/me/me.{name}.png").read_bytes()


def test_refine_takes_other_options_and_another_folder(place, sidecar):
    sidecar.on_step = DIVERGED
    assert cli.main(["invert", "me.png", "--checkpoint-every", "10", "--weight", "f=2", "--steps", "50"]) == 3
    sidecar.on_step = lambda _step, _context: None
    before = Path(FILE).read_bytes()
    assert cli.main(["refine", FILE, "--steps", "30", "--weight", "mse=3", "--out", "there"]) == 0
    options = from_request(sidecar.requests[-1]).options
    assert (options.steps, options.weights) == (30, {"f": 2.0, "mse": 3.0})
    assert Path(FILE).read_bytes() == before
    assert Inversion.load("there/me.inversion.safetensors").refinement.step == 30
    assert (place / "there/me.sheet.png").is_file()


def test_refine_after_fast_needs_the_photo(place, capsys, sidecar):
    assert cli.main(["invert", "--fast", "me.png"]) == 0
    capsys.readouterr()
    code, message = failed(capsys, "refine", FILE)
    assert code == 2
    assert "--photo" in message
    assert "me.png" in message
    Image.new("RGB", (50, 50)).save("installed/other.png")
    code, message = failed(capsys, "refine", FILE, "--photo", "installed/other.png")
    assert code == 2
    assert "other.png is not the photo" in message
    assert sidecar.requests == []
    before = Path(FILE).read_bytes()
    assert cli.main(["refine", FILE, "--photo", "me.png"]) == 0
    assert Path(FILE).read_bytes() == before
    assert Inversion.load(REFINED).method == "refined:default"
    assert files(place) == sorted([*RESULTS, *(name.replace("me/me.", "me/me.refined.") for name in RESULTS[2:])])
    assert cli.main(["refine", FILE, "--photo", "me.png", "--force"]) == 0
    assert Inversion.load(FILE).method == "refined:default"


@pytest.mark.usefixtures("place")
def test_refine_of_what_is_finished_starts_anew_and_its_failure_leaves_the_file(capsys, sidecar):
    assert cli.main(["invert", "me.png"]) == 0
    finished = Path(FILE).read_bytes()
    sidecar.on_step = abort(3, grpc.StatusCode.FAILED_PRECONDITION, "The loss became NaN.")
    capsys.readouterr()
    code, message = failed(capsys, "refine", FILE)
    assert code == 3
    assert message.endswith("The loss became NaN\n")
    assert Path(FILE).read_bytes() == finished
    sidecar.on_step = lambda _step, _context: None
    assert cli.main(["refine", FILE]) == 0
    assert not sidecar.requests[-1].HasField("resume")
    assert Path(FILE).read_bytes() == finished != Path(REFINED).read_bytes()
    assert cli.main(["refine", FILE, "--force"]) == 0
    assert Path(FILE).read_bytes() == Path(REFINED).read_bytes()


@pytest.mark.parametrize("name", ["none", "me.png", "installed"])
def test_refine_of_what_is_no_inversion(place, capsys, name):
    code, _ = failed(capsys, "refine", name)
    assert code == 2
    assert files(place) == []


@pytest.mark.usefixtures("place")
def test_a_side_car_that_stays_away_leaves_the_last_checkpoint(capsys, sidecar):
    sidecar.on_step = lambda step, context: (
        step < 15 or len(sidecar.requests) > 99 or context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
    )
    code, message = failed(capsys, "invert", "me.png", "--checkpoint-every", "10", "--patience", "0.3")
    assert code == 3
    assert "went away; the inversion of step 10 is in" in message
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
    code, message = failed(capsys, "invert", "me.png", "--url", url, "--patience", "0.5")
    assert code == 3
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
    from client.files import atomic as writing

    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    code, message = failed(capsys, "invert", "me.png")
    assert code == 2
    assert "no space left on device; the refined inversion is in" in message
    assert files(place) == RESULTS[:3]
    assert Inversion.load(FILE).refinement.reason == "steps"


@pytest.mark.usefixtures("place")
def test_a_preview_that_cannot_be_written_costs_no_checkpoint(capsys):
    code, message = failed(capsys, "invert", "me.png", "--checkpoint-every", "4", "--preview", "installed")
    assert code == 2
    assert "`installed`: it is a directory" in message
    assert Inversion.load(FILE).refinement.step == 4


def interrupt(place: Path, sidecar: FakeSidecar, *arguments: str, at: int, times: int = 1):
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
            process.send_signal(signal.SIGINT)
        output, error = process.communicate()
    assert sidecar.over.wait(60)
    sidecar.on_step = lambda _step, _context: None
    return process.returncode, output, error


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def test_ctrl_c_leaves_the_last_checkpoint_and_refine_goes_on(place, sidecar):
    code, output, error = interrupt(place, sidecar, "invert", "me.png", "--checkpoint-every", "10", at=20)
    assert (code, output) == (130, "")
    sentence = f"error: interrupted; the inversion of step 20 is in {FILE}: continue with `client refine {FILE}`\n"
    assert error == sentence
    assert files(place) == RESULTS[:3]
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
        assert files(place) == RESULTS[:3]
        assert Inversion.load(FILE).refinement.step == 20
    else:
        # The second came before the first was dealt with.
        assert [name for name in files(place) if (place / name).is_file()] == []


def test_progress_shows_only_on_a_terminal(place):
    import pty
    import termios

    seen = {}
    for extra in ((), ("--json",)):
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
    text = seen[()][0].decode()
    assert "refining" in text
    assert re.search(r"total=[\d.]+, mse=[\d.]+, perceptual=0\.5, f=0\.25, p_norm=0\.125", text)
    assert b"refining" not in seen["--json",][0]
    assert json.loads(seen["--json",][1])["method"] == "refined:default"


@pytest.mark.parametrize("text", ["脸" * 85, "é" * 127, "a" * 250, "😀." * 60, "a b. " * 40])
def test_names_are_cut_by_bytes(text):
    cut = part_of(text)
    assert 0 < len(cut.encode()) <= 100
    assert part_of(cut) == cut
    assert not cut.endswith((" ", "."))


@pytest.mark.usefixtures("place")
def test_a_photo_with_a_long_name(capsys):
    name = "脸" * 80 + ".png"
    Path("me.png").rename(name)
    assert cli.main(["invert", name, "--edit", "age=1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert Path(report["inversion"]).is_file()
    assert Path(report["edits"][0]["image"]).is_file()
