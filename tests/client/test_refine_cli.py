"""Refinement from the command line, over a pretended Triton and a pretended side-car."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from client import Inversion, RefineOptions, cli
from client.commands.follow import account_lines
from client.files.record import Refinement
from tests.client.fakes import GENERATOR, SIDE, direction_file
from tests.client.running import DIVERGED, FILE, REFINED, RESULTS, abort, failed, files, reported
from tests.client.sidecar_fakes import METRICS, STEPS, from_request


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
        "face found",
        "eyes 0.88",
        "  result          poor: the picture lacks details of the photo; the face is slightly off its place; "
        "the likeness is rough",
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
    arguments = ["--preset", "paper", "--steps", "12", "--seconds", "9.5", "--target", "0.25"]
    arguments += ["--checkpoint-every", "4", "--clip", "2.5"]
    weights = ["--weight", "mse=2", "--weight", "p_norm=0"]
    preview = ["--preview", "live/now.jpg"]
    report = reported(capsys, "invert", "me.png", *arguments, *weights, *preview)
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
    report = reported(capsys, "invert", "me.png", "--edit", "age=1", *arguments)
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
    report = reported(capsys, "invert", "me.png", "--method", "psp")
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
def test_bad_options_are_reported_before_anything_is_asked(place, capsys, sidecar, arguments, words):
    assert words in failed(capsys, "invert", "me.png", *arguments)
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
    assert arguments[0] in failed(capsys, "invert", "--fast", "me.png", *arguments)
    assert files(place) == []


def test_fast_needs_no_side_car_and_writes_what_it_wrote(place, capsys, sidecar, monkeypatch):
    monkeypatch.setenv("UNALIGNED_REFINE_URL", "127.0.0.1:1")
    assert cli.main(["invert", "--fast", "me.png", "--json"]) == 0
    assert "refinement" not in json.loads(capsys.readouterr().out)
    assert files(place) == RESULTS
    assert b"unaligned.inversion/3" in Path(FILE).read_bytes()
    assert sidecar.requests == []


def test_no_side_car(place, capsys):
    message = failed(capsys, "invert", "me.png", "--refine-url", "127.0.0.1:1", "--timeout", "30", code=3)
    for words in ("127.0.0.1:1", "--fast", "make serve"):
        assert words in message
    assert files(place) == []


def test_an_edit_that_cannot_be_is_reported_before_the_refinement(place, capsys, sidecar):
    direction_file(place / "installed/other.safetensors", generator="f" * 16)
    assert "f" * 16 in failed(capsys, "invert", "me.png", "--edit", "installed/other.safetensors=1")
    assert sidecar.requests == []
    assert files(place) == []


def test_a_loss_that_diverges_leaves_the_last_checkpoint(place, capsys, sidecar):
    sidecar.on_step = DIVERGED
    message = failed(capsys, "invert", "me.png", "--checkpoint-every", "10", code=3)
    assert "NaN; the inversion of step 20 is in out/me/me.inversion.safetensors" in message
    assert f"`client refine {FILE}`" in message
    assert files(place) == RESULTS[:4]
    assert Inversion.load(FILE).refinement.step == 20


@pytest.mark.usefixtures("place")
def test_a_request_that_is_refused_leaves_the_start_at_most(capsys, sidecar):
    sidecar.on_step = abort(1, grpc.StatusCode.INVALID_ARGUMENT, "The generator is another one.")
    assert "another one" in failed(capsys, "invert", "me.png", code=3)


def test_refine_continues_exactly(place, capsys, sidecar):
    assert cli.main(["invert", "me.png", "--out", "alone", "--checkpoint-every", "10", "--weight", "f=2"]) == 0
    sidecar.on_step = DIVERGED
    assert cli.main(["invert", "me.png", "--checkpoint-every", "10", "--weight", "f=2"]) == 3
    sidecar.on_step = lambda _step, _context: None
    capsys.readouterr()
    report = reported(capsys, "refine", FILE)
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
    message = failed(capsys, "refine", FILE)
    assert "--photo" in message
    assert "me.png" in message
    Image.new("RGB", (50, 50)).save("installed/other.png")
    assert "`other.png` is not the photo" in failed(capsys, "refine", FILE, "--photo", "installed/other.png")
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
    message = failed(capsys, "refine", FILE, code=3)
    assert message.endswith("the loss became NaN\n")
    assert Path(FILE).read_bytes() == finished
    sidecar.on_step = lambda _step, _context: None
    assert cli.main(["refine", FILE]) == 0
    assert not sidecar.requests[-1].HasField("resume")
    assert Path(FILE).read_bytes() == finished != Path(REFINED).read_bytes()
    assert cli.main(["refine", FILE, "--force"]) == 0
    assert Path(FILE).read_bytes() == Path(REFINED).read_bytes()


@pytest.mark.parametrize("name", ["none", "me.png", "installed"])
def test_refine_of_what_is_no_inversion(place, capsys, name):
    failed(capsys, "refine", name)
    assert files(place) == []


def test_a_start_that_was_kept_is_said() -> None:
    options = RefineOptions()
    kept = Refinement(options=options, step=3, steps=3, reason="steps", metrics=METRICS, start_kept=True)
    assert account_lines(kept)[-1] == (
        "  kept            the start, because the refined result is worse: give it more seconds or steps"
    )
    assert not any("kept" in line for line in account_lines(replace(kept, start_kept=False)))
