from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from client import Frame, GeneratorMismatch, Inversion, InversionError, OutputError
from client.files.inversion import SCHEMA
from tests.client.fakes import check_sentence, unhurried
from tests.client.inversions import made, parts, refinement, refused, rewritten, target


def test_round_trip(tmp_path):
    path = tmp_path / "it.inversion.safetensors"
    before = made()
    before.save(path)
    after = Inversion.load(path)
    for name in ("f", "w_m_plus", "f_o"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == np.float32
    for name in (
        "generator",
        "domain",
        "cut",
        "frame",
        "photo_size",
        "photo_sha256",
        "photo_name",
        "method",
        "versions",
    ):
        assert getattr(after, name) == getattr(before, name)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_others_can_read_it(tmp_path):
    made().save(tmp_path / "it")
    with safe_open(tmp_path / "it", "numpy") as file:
        assert set(file.keys()) == {"f", "w_m_plus", "f_o"}
        assert file.metadata()["schema"] == SCHEMA
        assert file.metadata()["crop"] == "1,2,30"


@unhurried
@given(
    x=st.integers(0, 500),
    y=st.integers(0, 500),
    size=st.integers(1, 500),
    name=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60),
)
def test_metadata_round_trips(tmp_path_factory, x, y, size, name):
    path = tmp_path_factory.getbasetemp() / "hypothesis.safetensors"
    small = np.zeros((512, 8, 8), np.float32)
    made(frame=Frame.crop(x, y, size), photo_size=(1000, 1000), photo_name=name, f=small, f_o=small, cut=8).save(path)
    after = Inversion.load(path)
    assert after.frame == Frame.crop(x, y, size)
    assert after.photo_name == name


def test_an_existing_file_is_replaced_and_nothing_is_left_on_failure(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"old")
    made().save(path)
    assert Inversion.load(path).cut == 16
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="directory"):
        made().save(tmp_path / "folder")
    with pytest.raises(OutputError):
        made().save(path / "below-a-file")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "it"]


@pytest.mark.parametrize("length", [0, 4, 8, 9, 200, 5000, 1_000_000])
def test_truncated(tmp_path, length):
    (tmp_path / "it").write_bytes(made().encode()[:length])
    assert "truncated" in refused(tmp_path / "it") or "not a safetensors" in refused(tmp_path / "it")


@pytest.mark.parametrize(
    "data", [b"hello, world, this is text", b"\xff\xd8\xff\xe0" + bytes(100), b"\x10" + bytes(7) + b"{" * 16]
)
def test_not_safetensors(tmp_path, data):
    (tmp_path / "it").write_bytes(data)
    assert "safetensors" in refused(tmp_path / "it")


@unhurried
@given(junk=st.binary(min_size=1, max_size=40), place=st.integers(0, 1500), refined=st.booleans())
def test_damage_in_the_header_gives_an_inversion_or_a_sentence(tmp_path_factory, junk, place, refined):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    small = np.zeros((512, 8, 8), np.float32)
    more = {"target": target(), "refinement": refinement()} if refined else {}
    data = made(f=small, f_o=small, cut=8, **more).encode()
    path.write_bytes(data[:place] + junk + data[place + len(junk) :])
    try:
        assert Inversion.load(path).f.shape == (512, 8, 8)
    except InversionError as problem:
        check_sentence(problem)


def test_missing_directory_and_too_large(tmp_path, monkeypatch):
    assert "does not exist" in refused(tmp_path / "none")
    assert "directory" in refused(tmp_path)
    made().save(tmp_path / "it")
    monkeypatch.setattr("client.files.inversion._MAX_BYTES", 1000)
    assert "larger than" in refused(tmp_path / "it")


def test_other_safetensors_files(tmp_path):
    path = tmp_path / "it"
    assert "not an inversion" in rewritten(path, schema=None)
    message = rewritten(path, schema="unaligned.inversion/9")
    assert "unaligned.inversion/9" in message
    assert SCHEMA in message
    path.write_bytes(save({"f": np.zeros(3, np.float32)}))
    assert "not an inversion" in refused(path)


@pytest.mark.parametrize("name", ["f", "w_m_plus", "f_o"])
def test_tensors_are_checked(tmp_path, name):
    path = tmp_path / "it"
    assert f"no tensor '{name}'" in rewritten(path, drop=(name,))
    good = parts(made())[0][name]
    bad = good.copy()
    bad.flat[77] = np.nan
    assert "not finite" in rewritten(path, tensors={name: bad})
    bad.flat[77] = np.inf
    assert "not finite" in rewritten(path, tensors={name: bad})
    assert "float64" in rewritten(path, tensors={name: good.astype(np.float64)})
    assert f"'{name}'" in rewritten(path, tensors={name: good[:, :5].copy()})
    assert f"'{name}'" in rewritten(path, tensors={name: good.ravel()})


@pytest.mark.parametrize(
    "key",
    [
        "generator",
        "domain",
        "cut",
        "crop",
        "photo_size",
        "photo_sha256",
        "photo_name",
        "method",
        "client_version",
        "server_version",
    ],
)
def test_metadata_must_be_there(tmp_path, key):
    assert key in rewritten(tmp_path / "it", **{"frame": None, key: None})


@pytest.mark.parametrize(
    "wrong",
    [{"cut": "x"}, {"cut": "32"}, {"crop": "1,2"}, {"crop": "30,30,30"}, {"crop": "-1,0,5"}, {"photo_size": "40"}],
)
def test_metadata_must_be_right(tmp_path, wrong):
    assert rewritten(tmp_path / "it", **{"frame": None, **wrong})


@pytest.mark.parametrize(
    "wrong",
    ["", "crop,1,2,30", "round,1,2,30,0", "crop,1,2,nan,0", "crop,30,30,30,0", "aligned,90,2,30,1", "crop,1,2,0,0"],
)
def test_the_frame_must_be_right(tmp_path, wrong):
    assert "frame" in rewritten(tmp_path / "it", frame=wrong) or "within its photo" in rewritten(
        tmp_path / "it", frame=wrong
    )


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [((40, 50), "0,5,40", Frame("square", 0, 5, 40)), ((40, 50), "1,2,30", Frame.crop(1, 2, 30))],
)
def test_an_older_file_has_a_crop_alone(tmp_path, size, crop, expected):
    found, texts = parts(made(photo_size=size))
    del texts["frame"]
    (tmp_path / "it").write_bytes(save(found, metadata={**texts, "crop": crop}))
    assert Inversion.load(tmp_path / "it").frame == expected


def test_a_rotated_frame_is_kept_to_the_last_digit_and_older_versions_refuse_it(tmp_path):
    frame = Frame("aligned", -1.2345678901234567, 1 / 3, 30.1, -2.7)
    before = made(frame=frame)
    before.save(tmp_path / "it")
    assert Inversion.load(tmp_path / "it").frame == frame
    assert "crop" not in parts(before)[1]


def test_metadata_cannot_smuggle_control_characters(tmp_path):
    found, texts = parts(made())
    (tmp_path / "it").write_bytes(save(found, metadata={**texts, "photo_name": "a\x1b[2Jb\nc"}))
    assert Inversion.load(tmp_path / "it").photo_name == "a?[2Jb c"


def test_creation_is_checked():
    with pytest.raises(InversionError, match="not finite"):
        made(f=np.full((512, 16, 16), np.nan, np.float32))
    with pytest.raises(InversionError, match="float64"):
        made(f=np.zeros((512, 16, 16)))


def test_other_generators_are_refused_by_name():
    inversion = made()
    inversion.require_generator("aaaaaaaaaaaaaaaa", domain="ffhq", cut=16)
    with pytest.raises(GeneratorMismatch, match=r"aaaaaaaaaaaaaaaa.*bbbb"):
        inversion.require_generator("bbbb")
    with pytest.raises(GeneratorMismatch, match=r"ffhq.*cars"):
        inversion.require_generator("aaaaaaaaaaaaaaaa", domain="cars")
    with pytest.raises(GeneratorMismatch, match=r"16x16.*8x8"):
        inversion.require_generator("aaaaaaaaaaaaaaaa", cut=8)
