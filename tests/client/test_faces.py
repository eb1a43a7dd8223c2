"""Faces through the API and the command line, against a pretended finder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client import AnswerRefused, Frame, Inversion, ModelMissing, Wanted, cli
from client.frames.choice import MORE_FACES
from client.triton.transport import ModelConfig
from tests.client.calling import result_of
from tests.client.calls import AskConfig, Call, Infer
from tests.client.fakes import FACE, MARK, MOST, FakeTransport, check_sentence, config, marked
from tests.client.running import failed, files, opened, reported

PLACES = ((100, 60), (220, 90))


def picture(path: Path, places: tuple[tuple[int, int], ...] = PLACES, size: tuple[int, int] = (320, 160)) -> Path:
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    for x, y in places:
        pixels[y, x] = MARK
    Image.fromarray(pixels).save(path)
    return path


def test_faces_are_found_the_largest_first(tmp_path, asynchronous):
    transport = FakeTransport()
    faces = result_of("faces", picture(tmp_path / "a.png"), transport=transport, asynchronous=asynchronous)
    assert [call.model for call in transport.inferences] == ["faces"]
    assert transport.inferences[0].inputs["image"].shape == (160, 320, 3)
    # The fake's boxes grow to the right.
    np.testing.assert_allclose([face.landmarks[2] for face in faces], [[220.5, 90.5], [100.5, 60.5]])
    np.testing.assert_allclose(faces[1].landmarks, FACE + np.array([100.5, 60.5]))
    assert faces[0].area > faces[1].area and faces[0].score == pytest.approx(0.9)


def test_a_large_photo_is_shrunk_before_it_is_sent(tmp_path):
    def fault(call: Call) -> object | None:
        if isinstance(call, Infer) and call.model == "faces":
            assert call.inputs["image"].shape == (960, 1920, 3)
            image = np.zeros((960, 1920, 3), np.uint8)
            image[480, 960] = MARK
            return marked(image)
        return None

    (face,) = result_of(
        "faces", picture(tmp_path / "a.png", (), size=(3000, 1500)), transport=FakeTransport(fault=fault)
    )
    np.testing.assert_allclose(face.landmarks, (FACE + np.array([960.5, 480.5])) * 3000 / 1920, rtol=1e-6)


def test_frames_of_a_photo(tmp_path, asynchronous):
    path = picture(tmp_path / "a.png")
    found = result_of("frames", path, transport=FakeTransport(), asynchronous=asynchronous)
    assert found.frames == (Frame.aligned(FACE + np.array([220.5, 90.5])),)
    every = result_of("frames", path, Wanted("upright", "all"), transport=FakeTransport())
    assert [frame.kind for frame in every.frames] == ["upright", "upright"]
    asked = FakeTransport()
    assert result_of("frames", path, Wanted("square"), transport=asked).frames == (Frame.square((320, 160)),)
    assert asked.calls == []


def without_finder(call: Call) -> ModelConfig | None:
    if isinstance(call, AskConfig):
        found = config(call.model)
        return replace(found, parameters={k: v for k, v in found.parameters.items() if k != "face_finder"})
    return None


@pytest.mark.parametrize("options", [{"fault": without_finder}, {"missing": ("faces",)}])
def test_a_domain_without_faces_has_squares(tmp_path, options):
    path = picture(tmp_path / "a.png")
    with pytest.raises(ModelMissing) as caught:
        result_of("faces", path, transport=FakeTransport(**options))
    check_sentence(caught.value)
    found = result_of("frames", path, transport=FakeTransport(**options))
    assert found.frames == (Frame.square((320, 160)),)
    assert "no face finder" in found.note


@pytest.mark.parametrize("name", ["boxes", "landmarks", "scores"])
def test_a_finder_that_answers_nonsense_is_refused(tmp_path, name):
    def fault(call: Call) -> object | None:
        if isinstance(call, Infer):
            answer = marked(np.full((20, 20, 3), MARK, np.uint8))
            return {**answer, name: answer[name] * np.float32(np.nan) if name != "boxes" else answer[name] * -1}
        return None

    with pytest.raises(AnswerRefused) as caught:
        result_of("faces", picture(tmp_path / "a.png"), transport=FakeTransport(fault=fault))
    check_sentence(caught.value)


def test_the_command_lists_and_draws_them(place, capsys):
    picture(place / "two.png")
    assert cli.main(["faces", "two.png", "--out", "boxes.png"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "two.png (320x160): 2 faces" in captured.out and "boxes.png" in captured.out
    drawn = np.asarray(opened(place / "boxes.png")).astype(int)
    assert drawn.shape == (160, 320, 3) and (drawn != 90).any(axis=2).mean() > 0.01
    report = reported(capsys, "faces", "two.png")
    assert [face["number"] for face in report["faces"]] == [1, 2]
    assert np.shape(report["faces"][0]["landmarks"]) == (5, 2)
    assert report["photo"]["size"] == [320, 160]


@pytest.mark.usefixtures("place")
def test_a_crowd_is_bounded_and_said(capsys):
    pixels = np.full((200, 300, 3), MARK, np.uint8)
    Image.fromarray(pixels).save("crowd.png")
    assert cli.main(["faces", "crowd.png", "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert len(report["faces"]) == MOST and report["note"] == MORE_FACES
    assert MORE_FACES in captured.err


def test_the_chosen_faces_are_inverted(place, capsys):
    picture(place / "two.png")
    report = reported(capsys, "invert", "--fast", "two.png", "--face", "all", "--edit", "age=1")
    assert [each["face"] for each in report["inversions"]] == [1, 2]
    paths = [f"out/two/two.face-{number}.inversion.safetensors" for number in (1, 2)]
    assert [each["inversion"] for each in report["inversions"]] == paths
    assert Inversion.load(paths[1]).frame == Frame.aligned(FACE + np.array([100.5, 60.5]))
    before = files(place)
    found = reported(capsys, "invert", "--fast", "two.png")
    assert found["inversion"] == "out/two/two.inversion.safetensors"
    assert (found["frame"]["kind"], found["face"], found["note"]) == ("aligned", 1, None)
    # What replaces it leaves the pictures of the faces.
    assert cli.main(["invert", "--fast", "two.png", "--force"]) == 0
    assert set(before) < set(files(place))
    capsys.readouterr()
    assert "face-2" in failed(capsys, "invert", "--fast", "two.png", "--face", "2")


def test_a_photo_without_a_face_is_inverted_as_a_square_and_that_is_said(place, capsys):
    picture(place / "none.png", ())
    assert cli.main(["invert", "--fast", "none.png", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "warning: `none.png`: no face found: inverting the centred square\n"
    report = json.loads(captured.out)
    assert report["frame"]["kind"] == "square" and "no face" in report["note"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--frame", "aligned"], "no face found"),
        (["--face", "2"], "no face found"),
        (["--frame", "square", "--face", "1"], "needs no face"),
        (["--crop", "0,0,20", "--frame", "auto"], "--crop and --frame"),
        (["--crop", "0,0,20", "--face", "1"], "--crop needs no --face"),
        (["--frame", "somewhere"], "unknown frame"),
        (["--frame", "300,0,50"], "320x160"),
    ],
)
def test_bad_choices_are_one_sentence(place, capsys, arguments, why):
    picture(place / "none.png", ())
    assert why in failed(capsys, "invert", "--fast", "none.png", *arguments)


@pytest.mark.usefixtures("place")
def test_a_sliver_is_refused(capsys):
    Image.new("RGB", (30000, 1)).save("sliver.png")
    for command in ("faces", "invert"):
        assert "too small: 30000x1" in failed(capsys, command, "sliver.png")
