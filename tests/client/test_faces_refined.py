"""``client invert --face all`` and ``client refine`` of several inversions, over pretended servers."""

from __future__ import annotations

import json
import shlex
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
from protocol import codec
from tests.client.fakes import direction_file
from tests.client.running import failed, files, opened, reported
from tests.client.sidecar_fakes import STEPS, FakeSidecar, from_request, simulated
from tests.client.test_edit_photo import faces_changed
from tests.client.test_faces import picture

PATHS = [f"out/two/two.face-{number}.inversion.safetensors" for number in (1, 2)]
INVERT = ["invert", "two.png", "--face", "all", "--checkpoint-every", "10"]


class Knowing(FakeSidecar):
    """A side-car whose ``on_face`` is told whose step it is."""

    on_face = staticmethod(lambda _face, _step, _context: None)

    def Refine(self, request, context):
        self.requests.append(request)
        asked = from_request(request)
        face = 2 if asked.f_o.mean() < 0.3 else 1
        for message in simulated(asked, lambda step: self.on_face(face, step, context)):
            yield codec.to_event(message)


@pytest.fixture
def sidecar():
    return Knowing()


@pytest.fixture
def two(place: Path) -> Path:
    """A photo of two faces; the second one's surroundings are darker."""
    picture(place / "two.png")
    pixels = np.array(opened(place / "two.png"))
    pixels[:, :160][(pixels[:, :160] == 90).all(axis=2)] = 40
    Image.fromarray(pixels).save(place / "two.png")
    return place


def made(*paths: str) -> list[bytes]:
    return [Path(path).read_bytes() for path in paths]


@pytest.mark.usefixtures("two")
def test_faces_are_refined_as_one_batch(capsys, sidecar):
    meeting = threading.Barrier(2)
    sidecar.on_face = lambda _face, step, _context: step == 20 and meeting.wait(60)
    command = [*INVERT, "--seconds", "60", "--preview", "live.jpg", "--edit", "age=3", "--json"]
    assert cli.main(command) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    report = json.loads(captured.out)
    assert [each["face"] for each in report["inversions"]] == [1, 2]
    assert [each["refinement"]["reason"] for each in report["inversions"]] == ["steps", "steps"]
    assert report["failed"] == []
    assert faces_changed(report["edits"][0]["image"]) == [True, True]
    assert [from_request(request).options.seconds for request in sidecar.requests] == [60, 60]
    assert sorted(str(path) for path in Path().glob("live*")) == ["live.face-1.jpg", "live.face-2.jpg"]


@pytest.mark.usefixtures("two")
def test_a_face_that_fails_leaves_the_other(capsys, sidecar):
    def diverge(face, step, context):
        if (face, step) == (1, 27):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The loss became NaN.")

    sidecar.on_face = diverge
    assert cli.main([*INVERT, "--edit", "age=3", "--json"]) == 3
    captured = capsys.readouterr()
    why = f"the loss became NaN; the inversion of step 20 is in {PATHS[0]}: continue with `client refine {PATHS[0]}`"
    assert captured.err.startswith("error: face 1 of `two.png`: the side-car at ")
    assert captured.err.endswith(f"{why}\n")
    report = json.loads(captured.out)
    assert [each["face"] for each in report["inversions"]] == [2]
    (problem,) = report["failed"]
    assert (problem["name"], problem["kind"]) == ("face 1 of `two.png`", "RefinementDiverged")
    # The first face is the one at the right.
    assert faces_changed(report["edits"][0]["image"]) == [True, False]
    assert [Inversion.load(path).refinement.step for path in PATHS] == [20, STEPS]
    assert Path("out/two/two.face-1.reconstruction.png").exists()
    # It can go on, and be edited with the other.
    sidecar.on_face = lambda _face, _step, _context: None
    assert cli.main(["refine", PATHS[0]]) == 0
    edit = ["edit", *PATHS, "--photo", "two.png", "--direction", "age", "--strength", "3", "--out", "again", "--json"]
    capsys.readouterr()
    assert cli.main(edit) == 0
    assert faces_changed(json.loads(capsys.readouterr().out)["edits"][0]["image"]) == [True, True]


@pytest.mark.usefixtures("two")
def test_where_all_fail_each_leaves_its_checkpoint(capsys, sidecar):
    sidecar.on_face = lambda face, step, context: (
        step < 10 * face + 5 or context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The loss became NaN.")
    )
    message = failed(capsys, *INVERT, code=3)
    files = f"{PATHS[0]} and {PATHS[1]}: continue with `client refine {' '.join(PATHS)}`\n"
    assert message.endswith(f"the loss became NaN; the inversions of steps 10 and 20 are in {files}")


def test_ctrl_c_keeps_every_face_and_refine_continues_with_all(two, sidecar, capsys):
    leave = threading.Event()
    sidecar.on_face = lambda face, step, _context: step <= 10 * face + 2 or leave.wait(60)
    command = [sys.executable, "-m", "client", *INVERT, "--seconds", "60", "--preview", "live.jpg"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        previews = [two / f"live.face-{face}.jpg" for face in (1, 2)]
        while not all(p.is_file() and opened(p).getpixel((0, 0))[0] > 10 * f - 4 for f, p in enumerate(previews, 1)):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate()
    leave.set()
    assert (process.returncode, output) == (130, "")
    assert error == (
        f"error: interrupted; the inversions of steps 10 and 20 are in {PATHS[0]} and {PATHS[1]}: continue with "
        f"`client refine {' '.join(PATHS)}`\n"
    )
    meeting = threading.Barrier(2)
    sidecar.on_face = lambda _face, step, _context: step == 30 and meeting.wait(60)
    report = reported(capsys, "refine", *PATHS)
    assert [each["inversion"] for each in report["inversions"]] == PATHS
    resumed = [from_request(request) for request in sidecar.requests[2:]]
    assert sorted(request.resume.step for request in resumed) == [10, 20]
    assert {request.options.seconds for request in resumed} == {60}
    again = made(*PATHS)
    meeting.reset()
    assert cli.main([*INVERT, "--seconds", "60", "--force"]) == 0
    assert made(*PATHS) == again


@pytest.mark.usefixtures("two")
def test_an_edit_of_all_faces_that_cannot_be_is_reported_before_the_refinement(place, capsys, sidecar):
    direction_file(place / "installed/other.safetensors", generator="f" * 16)
    assert "f" * 16 in failed(capsys, *INVERT, "--edit", "installed/other.safetensors=1")
    assert sidecar.requests == []


@pytest.mark.usefixtures("two")
def test_several_inversions_that_do_not_go_together(capsys, sidecar):
    assert cli.main(["invert", "--fast", "two.png", "--face", "all"]) == 0
    assert cli.main(["invert", "--fast", "me.png"]) == 0
    capsys.readouterr()
    before = files(Path())
    for arguments, words in (
        ((PATHS[0], "out/me/me.inversion.safetensors", "--photo", "two.png"), "of different photos, `two.png` and"),
        ((PATHS[0], PATHS[0], "--photo", "two.png"), "two results would go to"),
        ((*PATHS,), "--photo"),
    ):
        assert words in failed(capsys, "refine", *arguments)
    assert files(Path()) == before
    assert sidecar.requests == []
    assert cli.main(["refine", *PATHS, "--photo", "two.png", "--seconds", "5"]) == 0
    assert all(Path(path.replace(".inv", ".refined.inv")).exists() for path in PATHS)


@pytest.mark.usefixtures("two")
def test_the_command_that_goes_on_can_be_typed_for_any_name(capsys, sidecar):
    name = "Tante  Käthe's $HOME"
    Path("two.png").rename(f"{name}.png")
    sidecar.on_face = lambda _face, step, context: (
        step < 15 or context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The loss became NaN.")
    )
    message = failed(capsys, "invert", f"{name}.png", *INVERT[2:], code=3)
    command = shlex.split(message.partition("continue with `")[2].rstrip().removesuffix("`"))
    assert command[:2] == ["client", "refine"]
    assert [Inversion.load(path).refinement.step for path in command[2:]] == [10, 10]
    sidecar.on_face = lambda _face, _step, _context: None
    assert cli.main(command[1:]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--face", "4"], "there is no face 4 in `odd one.png`, which shows 3 faces"),
        (["--face", "0"], "invalid face `0`: expected largest, all or a number from 1"),
        (["--frame", "300,100,100"], "the crop 300,100,100 (x,y,size) does not lie within `odd one.png`"),
        (["--frame=-10,0,100"], "the crop -10,0,100 (x,y,size) does not lie within `odd one.png`"),
        (["--frame", "0,0,8"], "is too small: its side must be at least 16 pixels"),
    ],
)
def test_what_a_photo_does_not_show_is_one_sentence(place, capsys, arguments, words):
    picture(place / "odd one.png", ((60, 60), (160, 60), (250, 90)))
    assert words in failed(capsys, "invert", "--fast", "odd one.png", *arguments)
    assert files(place) == ["odd one.png"]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "turned"])
def test_faces_of_any_kind_of_photo_are_edited_and_the_size_stays(place, capsys, mode):
    """Faces that touch, one of them at the photo's edge."""
    picture(place / "odd.png", ((30, 60), (80, 70), (310, 90)))
    photo, options = opened(place / "odd.png"), {}
    if mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    else:
        # The pretended finder looks for a colour, which grey photos do not have.
        photo = photo.convert(mode)
    photo.save("odd.png", **options)
    report = reported(capsys, "invert", "--fast", "odd.png", "--face", "all", "--edit", "age=-2,2")
    coloured = mode in ("P", "RGBA", "turned")
    assert [each.get("face") for each in report["inversions"]] == ([1, 2, 3] if coloured else [None])
    for edit in report["edits"]:
        assert opened(Path(edit["image"])).size == (320, 160)
