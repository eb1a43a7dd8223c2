from __future__ import annotations

import numpy as np
import pytest

from client import Direction, DirectionError
from client.files import direction as directions
from tests.client.fakes import GENERATOR, direction_file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "FOLDER", tmp_path / "directions")
    return tmp_path / "directions" / "ffhq"


def test_names_and_load(folder):
    assert directions.names("ffhq") == []
    direction_file(folder / "smile.safetensors", unit="one standard deviation", suggested_range="-3,2.5", source="ours")
    direction_file(folder / "age.safetensors", scale="2.5", layers="0-7")
    (folder / "README.md").write_text("about them")
    assert directions.names("ffhq") == ["age", "smile"]
    assert directions.names("cars") == []
    smile = directions.load("ffhq", "smile")
    assert (smile.name, smile.generator, smile.scale, smile.layers) == ("smile", GENERATOR, 1.0, None)
    assert (smile.unit, smile.suggested_range, smile.source) == ("one standard deviation", (-3.0, 2.5), "ours")
    age = directions.load("ffhq", "age")
    assert (age.scale, age.layers) == (2.5, (0, 7))


def test_unknown_names_say_the_known_ones(folder):
    with pytest.raises(DirectionError, match="none are installed"):
        directions.load("ffhq", "age")
    direction_file(folder / "smile.safetensors")
    for name in ("age", "", "../smile", "ffhq/smile", "*"):
        with pytest.raises(DirectionError, match="smile"):
            directions.load("ffhq", name)


def test_own_file(tmp_path):
    path = direction_file(tmp_path / "mine.safetensors", name="")
    assert directions.load("ffhq", str(path)).name == "mine"
    with pytest.raises(DirectionError, match="does not exist"):
        directions.load("ffhq", str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("not finite", {"vector": np.full(512, np.nan, np.float32)}),
        ("length 1", {"vector": np.zeros(512, np.float32)}),
        (r"float32 \[512\]", {"vector": np.eye(1, 511, dtype=np.float32)[0]}),
        (r"float32 \[512\]", {"vector": np.eye(2, 512, dtype=np.float32)}),
        *(("scale", {"scale": value}) for value in ("0", "-1", "nan", "much")),
        *(("turns", {"turns": value}) for value in ("yes", "nan", "inf", "-11")),
        *(("features", {"features": value}) for value in ("-0.1", "1.1", "nan")),
        *(("gain", {"gain": value}) for value in ("0", "-1", "nan", "11")),
        *(("unreadable .* features or gain", {key: "much"}) for key in ("features", "gain")),
        *(("layers", {"layers": value}) for value in ("3", "5-3", "1-2-3")),
        *(("range", {"suggested_range": value}) for value in ("3", "3,-3", "nan,3")),
        ("which generator", {"generator": ""}),
    ],
)
def test_files_are_checked(tmp_path, words, wrong):
    with pytest.raises(DirectionError, match=words):
        Direction.load(direction_file(tmp_path / "it.safetensors", **wrong))


def test_how_far_heads_turn_is_read_and_counts(tmp_path):
    still, turning = (
        Direction.load(direction_file(tmp_path / f"{n}.safetensors", **changes))
        for n, changes in enumerate(({}, {"turns": "0.2"}))
    )
    assert still.turned([1, 2]) == [0, 0]
    assert turning.turned([-1, 2.5]) == [-0.2, 0.5]
    assert still.digest() != turning.digest()


def test_what_a_photo_gets_is_read_and_counts(tmp_path):
    plain, photo = (
        Direction.load(direction_file(tmp_path / f"{n}.safetensors", scale="2", **changes))
        for n, changes in enumerate(({}, {"features": "0.25", "gain": "1.5"}))
    )
    assert (plain.features, plain.gain, plain.in_photo.scale) == (1, 1, 2)
    assert (photo.features, photo.scale) == (0.25, 2)
    assert (photo.in_photo.scale, photo.in_photo.gain, photo.in_photo.features) == (3, 1, 0.25)
    assert photo.in_photo.in_photo.scale == 3
    assert plain.digest() == plain.in_photo.digest()
    assert len({each.digest() for each in (plain, photo, photo.in_photo)}) == 3


def test_not_a_direction_file(tmp_path):
    (tmp_path / "it.safetensors").write_bytes(b"text")
    with pytest.raises(DirectionError, match="not a safetensors"):
        Direction.load(tmp_path / "it.safetensors")


def direction(**changes) -> Direction:
    return Direction(**{"name": "it", "vector": np.eye(1, 512, dtype=np.float32)[0], "generator": GENERATOR, **changes})


@pytest.mark.parametrize(
    ("layers", "moved"),
    [
        (None, range(12)),
        ((0, 15), range(12)),
        ((4, 4), [0]),
        ((0, 7), range(4)),
        ((10, 30), range(6, 12)),
        ((15, 15), [11]),
    ],
)
def test_the_step_moves_the_layers_by_the_scale(layers, moved):
    step = direction(layers=layers, scale=2.5).step(before=4, styles=12)
    expected = np.zeros((12, 512), np.float32)
    expected[list(moved), 0] = 2.5
    assert step.dtype == np.float32
    np.testing.assert_array_equal(step, expected)


def test_the_step_of_the_earlier_cut_starts_at_style_two():
    step = direction(layers=(0, 3)).step(before=2, styles=14)
    assert np.flatnonzero(step.any(axis=1)).tolist() == [0, 1]


def test_a_direction_of_the_coarse_half_cannot_edit():
    with pytest.raises(DirectionError, match="before the cut"):
        direction(layers=(0, 3)).step(before=4, styles=12)


def test_other_generators_are_refused():
    direction().require_generator(GENERATOR)
    with pytest.raises(DirectionError, match=f"{GENERATOR}.*bbbb"):
        direction().require_generator("bbbb")
