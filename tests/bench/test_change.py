"""``bench change``: what it measures, and its tables."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from PIL import Image

from bench.change import Bench, Measured, add_arguments, markdown, mouth_edges, pasted, seam
from client.api import Inverter
from client.change.paste import Paste
from client.files.photo import Photo
from client.frames.frame import Frame
from judges.faces import Face, Image8
from tests.client.fakes import FakeTransport, add_faithful

FRAME = Frame("aligned", 160.0, 120.0, 427.0, 20.0)


def flat(level: int) -> np.ndarray:
    return np.full((256, 256, 3), level, np.uint8)


def test_a_hard_edge_is_a_step_and_ours_is_none() -> None:
    photo = Photo(Image.new("RGB", (800, 700), (100, 100, 100)), "a.png", "")
    hard = seam(pasted(photo, FRAME, flat(140)), photo, FRAME)
    ours = seam(Photo(Paste(photo, FRAME, flat(100))(flat(140)), "a.png", ""), photo, FRAME)
    assert hard[0] == pytest.approx(40, abs=15)
    assert ours[0] < 4
    assert ours[1] < hard[1] / 20
    assert seam(photo, photo, FRAME) == (0, 0)


def test_a_square_is_pasted_where_the_frame_is() -> None:
    pixels = np.asarray(pasted(Photo(Image.new("RGB", (800, 700)), "a.png", ""), FRAME, flat(90)).image)
    places = np.argwhere((pixels == 90).all(axis=2))[:, ::-1] + 0.5
    square = FRAME.to_square(places)
    assert square.min() > -0.02 and square.max() < 1.02
    assert len(places) == pytest.approx(FRAME.side**2, rel=0.05)


def test_a_mouth_seen_twice_has_more_edges() -> None:
    landmarks = np.array([[90, 90], [150, 90], [120, 120], [100, 160], [140, 160]], np.float32)
    face = Face(np.array([70, 60, 100, 130], np.float32), landmarks, 0.9)
    once, twice = flat(120), flat(120)
    once[158:162, 100:140] = 20
    twice[158:162, 100:140] = twice[168:172, 100:140] = 20
    assert mouth_edges(twice, face) > 1.5 * mouth_edges(once, face)


def test_the_tables() -> None:
    results = [
        Measured(way, "age", s, 0.5, s, 0.1, 1.0, 2.0, 3.0) for way in ("render", "sum", "photo") for s in (-2.0, 2.0)
    ]
    results.append(Measured("photo", "age", 3.0, None, None, None, None, 1.0, 1.0))
    lines = markdown(results, {"find": [0.25], "paste": []}, "1 photo, inverted in one pass").splitlines()
    assert "| age | render | 0.50 | -, -2.0, -, -, +2.0, - | 0.100 | 1.00 | - | - |" in lines
    assert "| age | photo | 0.50 | -, -2.0, -, -, +2.0, - | 0.100 | 1.00 | 2.00 | 3.00 |" in lines
    assert lines[-1] == "| 0.25 | - |"


def test_the_change_is_to_what_edits_start_from(monkeypatch: pytest.MonkeyPatch) -> None:
    add_faithful(monkeypatch)
    for name in ("Scorer", "Identity"):
        monkeypatch.setattr(f"bench.change.{name}", lambda: None)
    monkeypatch.setattr(Bench, "_seen", lambda _bench, picture: (picture, None, None))
    plain: list[Image8] = []
    monkeypatch.setattr("bench.change.Paste", lambda _photo, _frame, image, **_pose: plain.append(image))
    photo = Photo(Image.new("RGB", (80, 80), (90, 100, 110)), "a.png", "0" * 64)
    with Inverter(transport=FakeTransport()) as inverter:
        assert list(Bench(inverter)(photo, [], [])) == []
        result = inverter.invert(photo)
        expected = inverter.render(result.inversion.editable)
    assert (expected != result.reconstruction).all()
    np.testing.assert_array_equal(plain[0], expected)


def test_it_asks_the_server_that_server_run_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    monkeypatch.setenv("UNALIGNED_URL", "127.0.0.1:1")
    monkeypatch.setenv("UNALIGNED_REFINE_URL", "127.0.0.1:2")
    add_arguments(parser)
    asked = parser.parse_args([])
    assert (asked.url, asked.refine_url) == ("127.0.0.1:1", "127.0.0.1:2")
