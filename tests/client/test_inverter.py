from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import DirectionError, Frame, GeneratorMismatch, Inverter, ModelMissing, ParameterError, Photo, PhotoError
from client.triton.status import MODELS
from client.triton.transport import ModelConfig
from client.version import version
from tests.client.calling import direction, inverted, result_of
from tests.client.calls import AskConfig, AskReady
from tests.client.fakes import (
    GENERATOR,
    PHOTO_SIDE,
    SIDE,
    FakeTransport,
    check_sentence,
    config,
    direction_file,
    unhurried,
)


def test_invert(photo, asynchronous):
    transport = FakeTransport()
    result = result_of("invert", photo, Frame.crop(10, 5, 80), transport=transport, asynchronous=asynchronous)
    assert transport.closed
    finder, call = transport.inferences
    assert (finder.model, call.model) == ("faces", "ffhq_invert")
    expected = Photo.open(photo).pixels(Frame.crop(10, 5, 80), PHOTO_SIDE)
    np.testing.assert_array_equal(call.inputs["image"], expected[None])
    assert result.reconstruction.shape == (SIDE, SIDE, 3)
    assert result.reconstruction.dtype == np.uint8
    inversion = result.inversion
    np.testing.assert_array_equal(inversion.f, inversion.f_o)
    assert inversion.f[0, 0, 0] == np.float32(expected.mean() / 255)
    assert inversion.w_m_plus.shape == (12, 512)
    assert (inversion.generator, inversion.domain, inversion.cut) == (GENERATOR, "ffhq", 16)
    assert (inversion.frame, inversion.photo_size, inversion.photo_name) == (Frame.crop(10, 5, 80), (120, 90), "me.png")
    assert inversion.photo_sha256 == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert inversion.method == "encoder"
    assert inversion.versions == {"client": version(), "server": "2.51.0"}


@pytest.mark.parametrize(
    ("method", "cut", "models"),
    [
        ("bdinvert", 8, ["ffhq_cut8_invert"]),
        ("psp", None, ["ffhq_cut4_invert"]),
        ("idinvert", None, ["ffhq_cut4_invert"]),
        ("im2s", None, ["ffhq_cut4_encoder", "ffhq_mapping", "ffhq_cut4_fine"]),
    ],
)
def test_a_method_asks_the_models_of_its_cut(photo, asynchronous, method, cut, models):
    transport = FakeTransport(cuts=(16, 8, 4))
    result = result_of("invert", photo, transport=transport, asynchronous=asynchronous, method=method, cut=cut)
    assert [call.model for call in transport.inferences] == models
    side, styles = (8, 14) if cut else (4, 16)
    inversion = result.inversion
    assert (inversion.f.shape, inversion.w_m_plus.shape, inversion.cut) == ((512, side, side), (styles, 512), side)
    assert inversion.method == ("mean" if method == "im2s" else "encoder")
    if method == "im2s":
        # psi 0 is the mean, whatever z is.
        assert not inversion.w_m_plus.any()
        assert not transport.inferences[1].inputs["psi"].any()
    again = FakeTransport(cuts=(16, 8, 4))
    result_of("render", inversion, transport=again)
    images = result_of("edit", inversion, direction(), [1.0], transport=again)
    assert [call.model for call in again.inferences] == [f"ffhq_cut{side}_{role}" for role in ("fine", "edit")]
    assert images.shape == (1, SIDE, SIDE, 3)
    # In W+ a direction moves every style, behind a cut those that are there.
    assert again.inferences[-1].inputs["direction"].any(axis=1).sum() == styles


def test_a_server_of_one_cut_says_so(photo):
    with pytest.raises(ModelMissing, match="ffhq_cut8_invert"):
        result_of("invert", photo, transport=FakeTransport(), cut=8)


def test_the_centre_square_is_the_default(photo):
    inversion = result_of("invert", str(photo), transport=FakeTransport()).inversion
    assert inversion.frame == Frame("square", 15, 0, 90)


def test_what_the_server_said_is_asked_once(photo):
    transport = FakeTransport()
    with Inverter(transport=transport) as inverter:
        inverter.invert(photo)
        before = len(transport.calls)
        inverter.invert(photo)
    assert before == 7
    assert len(transport.calls) == 8


def test_bad_photos_and_crops_never_reach_the_server(photo, tmp_path, asynchronous):
    transport = FakeTransport()
    for path, crop in (
        (photo, Frame.crop(100, 0, 50)),
        (photo, Frame.crop(0, 0, 4)),
        (tmp_path / "none", None),
        (tmp_path, None),
    ):
        with pytest.raises(PhotoError) as caught:
            result_of("invert", path, crop, transport=transport, asynchronous=asynchronous)
        check_sentence(caught.value)
    assert transport.calls == []


def test_render(photo, asynchronous):
    transport = FakeTransport()
    inversion = result_of("invert", photo, transport=transport).inversion
    image = result_of("render", inversion, transport=transport, asynchronous=asynchronous)
    assert image.shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(transport.inferences[-1].inputs["f"], inversion.f[None])


@settings(unhurried, max_examples=20)
@given(count=st.integers(1, 30))
def test_edit_in_chunks_of_eight(count):
    transport = FakeTransport()
    strengths = np.linspace(-9, 9, count).tolist()
    images = result_of("edit", inverted(), direction(scale=1.25), strengths, transport=transport)
    assert images.shape == (count, SIDE, SIDE, 3)
    expected = (np.float32(strengths) * np.float32(1.25) * 10 + 128).astype(np.uint8)
    np.testing.assert_array_equal(images[:, 0, 0, 0], expected)
    sent = [call.inputs["strengths"] for call in transport.inferences]
    assert max(map(len, sent)) <= 8
    np.testing.assert_array_equal(np.concatenate(sent), np.float32(strengths))
    assert transport.inferences[0].inputs["direction"].shape == (16, 512)


def test_edit_is_the_same_asynchronously():
    strengths = [-3.0, 0.0, 3.0]
    one, other = (
        result_of("edit", inverted(), direction(), strengths, transport=FakeTransport(), asynchronous=way)
        for way in (False, True)
    )
    np.testing.assert_array_equal(one, other)


def test_edit_by_name_and_by_file(tmp_path, monkeypatch):
    monkeypatch.setattr("client.files.direction.FOLDER", tmp_path / "directions")
    direction_file(tmp_path / "directions/ffhq/age.safetensors")
    own = direction_file(tmp_path / "own.safetensors")
    for name in ("age", str(own)):
        assert len(result_of("edit", inverted(), name, [1.0], transport=FakeTransport())) == 1
    with pytest.raises(DirectionError, match="age"):
        result_of("edit", inverted(), "smile", [1.0], transport=FakeTransport())


@pytest.mark.parametrize("strengths", [[], [float("nan")], [1.0, float("inf")], [1e6], [[1.0]]])
def test_strengths_that_are_none_never_leave(strengths, asynchronous):
    transport = FakeTransport()
    with pytest.raises(ParameterError) as caught:
        result_of("edit", inverted(), direction(), strengths, transport=transport, asynchronous=asynchronous)
    check_sentence(caught.value)
    assert transport.inferences == []


def test_an_inversion_changed_to_nan_never_leaves():
    transport = FakeTransport()
    inversion = inverted()
    inversion.f[3, 4, 5] = np.nan
    for method, arguments in (("render", ()), ("edit", (direction(), [1.0]))):
        with pytest.raises(ParameterError, match=r"'f'.*not finite"):
            result_of(method, inversion, *arguments, transport=transport)
    assert transport.inferences == []


def test_a_server_that_takes_another_shape_is_not_sent_ours():
    def other(call):
        if isinstance(call, AskConfig):
            found = config(call.model)
            inputs = {**found.inputs, "w_m_plus": type(found.inputs["f"])(np.dtype(np.float32), (14, 512))}
            return ModelConfig(found.name, found.max_batch, inputs, found.outputs, found.parameters)
        return None

    transport = FakeTransport(fault=other)
    with pytest.raises(ParameterError, match=r"\[12, 512\], not \[14, 512\]"):
        result_of("render", inverted(), transport=transport)
    assert transport.inferences == []


def test_another_generator_is_refused_before_anything_is_sent(asynchronous):
    transport = FakeTransport(generator="ffffffffffffffff")
    inversion = inverted()
    for method, arguments in (("render", ()), ("edit", (direction(generator="ffffffffffffffff"), [1.0]))):
        with pytest.raises(GeneratorMismatch, match=f"{GENERATOR}.*ffffffffffffffff"):
            result_of(method, inversion, *arguments, transport=transport, asynchronous=asynchronous)
    assert transport.inferences == []
    with pytest.raises(DirectionError, match=f"ffffffffffffffff.*{GENERATOR}"):
        result_of("edit", inversion, direction(generator="ffffffffffffffff"), [1.0], transport=FakeTransport())


def test_generate(asynchronous):
    transport = FakeTransport()
    image = result_of("generate", 7, 0.5, transport=transport, asynchronous=asynchronous)
    assert image.shape == (SIDE, SIDE, 3)
    mapping, coarse, fine = transport.inferences
    z = np.random.default_rng(7).standard_normal(512).astype(np.float32)
    np.testing.assert_array_equal(mapping.inputs["z"], z[None])
    np.testing.assert_array_equal(mapping.inputs["psi"], np.full((1, 1), 0.5, np.float32))
    np.testing.assert_array_equal(coarse.inputs["w"], np.tile(z / 2, (1, 4, 1)))
    np.testing.assert_array_equal(fine.inputs["w_m_plus"], np.tile(z / 2, (1, 12, 1)))


@pytest.mark.parametrize(("seed", "psi"), [(-1, 0.7), (2**64, 0.7), (0, float("nan")), (0, float("inf")), (0, 3.0)])
def test_seeds_and_psi_are_checked(seed, psi):
    transport = FakeTransport()
    with pytest.raises(ParameterError):
        result_of("generate", seed, psi, transport=transport)
    assert transport.calls == []


def test_generate_refuses_halves_of_different_generators():
    def mixed(call):
        return config(call.model, generator="ffff") if call == AskConfig("ffhq_coarse") else None

    with pytest.raises(GeneratorMismatch, match="different generators"):
        result_of("generate", 1, transport=FakeTransport(fault=mixed))


def test_status(asynchronous):
    status = result_of("status", transport=FakeTransport(), asynchronous=asynchronous)
    assert status.usable
    assert (status.server.name, status.server.version) == ("triton", "2.51.0")
    assert (status.generator, status.cut) == (GENERATOR, 16)
    assert [model.name for model in status.models] == [*(f"ffhq_{model}" for model in MODELS), "faces"]
    assert all(model.ready and model.versions == ("1",) for model in status.models)


def test_status_lists_other_cuts_and_does_without_them():
    found = [
        result_of("status", transport=FakeTransport(cuts=(16, 8, 4), missing=missing))
        for missing in ((), ("ffhq_cut4_detail", "ffhq_cut4_invert"))
    ]
    assert [len(status.models) for status in found] == [21, 19]
    assert all(status.usable and status.cut == 16 for status in found)


def test_status_of_a_server_without_some_or_all_of_the_models():
    status = result_of("status", transport=FakeTransport(missing=("ffhq_mapping", "ffhq_edit")))
    assert not status.usable
    assert status.generator == GENERATOR
    assert [model.name for model in status.models if not model.served] == ["ffhq_mapping", "ffhq_edit"]
    everything = tuple(f"ffhq_{model}" for model in MODELS)
    status = result_of("status", transport=FakeTransport(missing=everything))
    assert (status.usable, status.generator, status.cut) == (False, None, None)


def test_status_of_a_model_that_is_not_ready():
    class Unready(FakeTransport):
        def send(self, call, *, timeout):
            return False if call == AskReady("ffhq_fine") else super().send(call, timeout=timeout)

    status = result_of("status", transport=Unready())
    assert not status.usable
    assert [model.name for model in status.models if model.served and not model.ready] == ["ffhq_fine"]
