"""Inversion, rendering and edits on the real server, through the API."""

from __future__ import annotations

import asyncio
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.paths import looks_file
from client import (
    AsyncInverter,
    Direction,
    Frame,
    GeneratorMismatch,
    Inversion,
    Inverter,
    ParameterError,
    Photo,
    RequestRejected,
)
from client.triton.grpc_sync import TritonTransport
from client.triton.status import MODELS, MORE
from server.triton import LocalTriton
from tests.client.calls import AskConfig, Infer, ask

data = pytest.importorskip("skimage.data", reason="scikit-image has the photo")


@pytest.fixture(scope="module")
def inverter(triton: LocalTriton):
    with Inverter(triton.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def photo() -> Photo:
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).save(buffer, "PNG")
    return Photo.decode(buffer.getvalue(), name="astronaut.png")


@pytest.fixture(scope="module")
def result(inverter, photo):
    return inverter.invert(photo)


def away(inversion: Inversion) -> Direction:
    """A random direction of W."""
    vector = np.random.default_rng(3).standard_normal(512).astype(np.float32)
    return Direction("away", vector / np.linalg.norm(vector), inversion.generator, scale=4.0)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean())


def test_status(inverter, triton):
    status = inverter.status()
    assert status.usable
    assert status.server.name == triton.id
    assert [model.name for model in status.models if model.needed] == [f"ffhq_{model}" for model in MODELS]
    others = [model.name for model in status.models if model.ready and not model.needed]
    cuts = [f"ffhq_cut{cut}_{model}" for cut in (8, 4) for model in MORE]
    looks = ["ffhq_looks"] if looks_file("ffhq", 16).exists() else []
    assert others == [*looks, "ffhq_styles", "ffhq_preview", "ffhq_picture", *cuts, "faces"]
    assert status.cut == 16
    assert len(status.generator) == 16


def test_invert(result, inverter):
    inversion = result.inversion
    assert inversion.f.shape == (512, 16, 16)
    assert inversion.w_m_plus.shape == (12, 512)
    assert inversion.f.std() > 0.01
    assert inversion.frame == Frame("square", 0, 0, 512)
    assert inversion.generator == inverter.status().generator
    assert inversion.versions["server"] == inverter.status().server.version
    assert result.reconstruction.shape == (1024, 1024, 3)
    assert result.reconstruction.std() > 10


def test_the_reconstruction_resembles_the_photo_more_than_another(result, photo, inverter):
    small = np.asarray(Image.fromarray(result.reconstruction).resize((32, 32), Image.Resampling.BOX))
    target = photo.pixels(Frame.square(photo.size), 32)
    other = np.asarray(Image.fromarray(inverter.generate(1)).resize((32, 32), Image.Resampling.BOX))
    assert difference(small, target) < difference(other, target)


def test_an_inversion_survives_its_file(result, inverter, tmp_path):
    result.inversion.save(tmp_path / "it")
    rendered = inverter.render(Inversion.load(tmp_path / "it"))
    assert difference(rendered, result.reconstruction) < 0.5
    assert np.abs(rendered.astype(int) - result.reconstruction).max() <= 2


def test_crops_and_sizes(inverter, photo):
    cropped = inverter.invert(photo, Frame.crop(100, 20, 300))
    assert cropped.inversion.frame == Frame.crop(100, 20, 300)
    tiny = Photo(photo.image.resize((37, 23)), "tiny.png", hashlib.sha256().hexdigest())
    assert inverter.invert(tiny).inversion.frame == Frame("square", 7, 0, 23)


@pytest.fixture(scope="module")
def plain(result, inverter):
    """What edits change, as it is rendered."""
    return inverter.render(result.inversion.editable)


def test_what_is_edited_is_another_code_than_what_is_shown(result, plain):
    assert result.inversion.faithful is not None
    assert difference(plain, result.reconstruction) > 1


def test_edit(result, inverter, plain):
    strengths = [-2.0, 0.0, 2.0]
    images = inverter.edit(result.inversion, away(result.inversion), strengths)
    assert images.shape == (3, 1024, 1024, 3)
    assert np.abs(images[1].astype(int) - plain).max() <= 2
    assert difference(images[0], images[1]) > 0.5
    assert difference(images[2], images[1]) > 0.5


def test_an_edit_is_the_rendering_of_the_moved_styles(result, inverter):
    inversion = replace(result.inversion.editable, face=None)  # so that f stays
    direction = away(inversion)
    (edited,) = inverter.edit(inversion, direction, [1.5])
    moved = Inversion(
        **{**vars(inversion), "w_m_plus": inversion.w_m_plus + np.float32(1.5) * direction.step(before=4, styles=12)}
    )
    assert np.abs(edited.astype(int) - inverter.render(moved)).max() <= 2


def test_more_strengths_than_a_request_takes(result, inverter, plain):
    strengths = np.linspace(-1, 1, 9).tolist()
    images = inverter.edit(result.inversion, away(result.inversion), strengths)
    assert images.shape[0] == 9
    assert np.abs(images[4].astype(int) - plain).max() <= 2


def test_the_server_refuses_more_than_eight_strengths(result, triton):
    inversion = result.inversion
    transport = TritonTransport(triton.url)
    tensors = {
        "f": inversion.f,
        "w_m_plus": inversion.w_m_plus,
        "w_coarse": np.zeros((4, 512), np.float32),
        "transform": np.eye(2, 3, dtype=np.float32),
        "direction": away(inversion).step(before=0, styles=16),
        "strengths": np.zeros(1500, np.float32),
    }
    with pytest.raises(RequestRejected, match=r"'strengths' has the shape \[1500\], but its dims may be at most 8"):
        ask(transport, Infer("ffhq_edit", tensors, ("images",)), timeout=120)
    transport.close()


def test_generate_is_deterministic(inverter):
    one = inverter.generate(7)
    np.testing.assert_array_equal(one, inverter.generate(7))
    assert difference(one, inverter.generate(8)) > 5
    mean = inverter.generate(7, psi=0.0)
    assert np.abs(mean.astype(int) - inverter.generate(8, psi=0.0)).max() <= 1


def test_async_equals_sync(result, photo, triton):
    async def go():
        async with AsyncInverter(triton.url) as inverter:
            return await asyncio.gather(
                inverter.invert(photo),
                inverter.edit(result.inversion, away(result.inversion), [1.0]),
                inverter.generate(7),
                inverter.status(),
            )

    again, edited, sample, status = asyncio.run(go())
    assert status.usable
    with Inverter(triton.url) as inverter:
        pairs = [
            (again.reconstruction, result.reconstruction),
            (edited, inverter.edit(result.inversion, away(result.inversion), [1.0])),
            (sample, inverter.generate(7)),
        ]
    # Requests that were batched together may round differently.
    np.testing.assert_allclose(again.inversion.f, result.inversion.f, atol=1e-4)
    for one, other in pairs:
        assert np.abs(one.astype(int) - other).max() <= 2


def test_many_at_once(photo, inverter, result):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: inverter.invert(photo), range(4)))
    for each in found:
        assert np.abs(each.reconstruction.astype(int) - result.reconstruction).max() <= 2


def test_another_generator_is_refused(result, inverter):
    foreign = Inversion(**{**vars(result.inversion), "generator": "0" * 16})
    for call in (lambda: inverter.render(foreign), lambda: inverter.edit(foreign, away(foreign), [1.0])):
        with pytest.raises(GeneratorMismatch, match=f"{'0' * 16}.*{result.inversion.generator}"):
            call()


def test_nan_is_stopped_here_and_wrong_shapes_there_too(result, inverter, triton):
    f = result.inversion.f.copy()
    inversion = Inversion(**{**vars(result.inversion.editable), "f": f})
    f[0, 0, 0] = np.nan
    with pytest.raises(ParameterError, match="not finite"):
        inverter.render(inversion)
    transport = TritonTransport(triton.url)
    wrong = {"f": np.zeros((1, 512, 8, 8), np.float32), "w_m_plus": np.zeros((1, 12, 512), np.float32)}
    with pytest.raises(RequestRejected, match="shape"):
        ask(transport, Infer("ffhq_fine", wrong, ("image",)), timeout=120)
    wrong = {"f": np.zeros((1, 512, 16, 16), np.float64), "w_m_plus": np.zeros((1, 12, 512), np.float32)}
    with pytest.raises(RequestRejected):
        ask(transport, Infer("ffhq_fine", wrong, ("image",)), timeout=120)
    transport.close()


@pytest.mark.parametrize(
    ("method", "cut", "side", "styles"),
    [("bdinvert", 8, 8, 14), ("psp", None, 4, 16), ("im2s", None, 4, 16)],
)
def test_every_method_starts_in_its_space(inverter, photo, method, cut, side, styles):
    found = inverter.invert(photo, Frame.crop(120, 20, 160), method=method, cut=cut)
    inversion = found.inversion
    assert (inversion.f.shape, inversion.w_m_plus.shape) == ((512, side, side), (styles, 512))
    assert difference(inverter.render(inversion), found.reconstruction) <= 1
    same, moved = inverter.edit(inversion, away(inversion), [0.0, 2.0])
    assert difference(same, found.reconstruction) <= 1
    assert difference(moved, found.reconstruction) > 1


def test_the_mean_of_w_is_psi_0(inverter, photo):
    whole = inverter.generate(5, 0.0)
    assert difference(inverter.invert(photo, method="im2s").reconstruction, whole) <= 1


def test_every_config_says_its_generator(triton):
    transport = TritonTransport(triton.url)
    found = [ask(transport, AskConfig(f"ffhq_{model}"), timeout=60).parameters for model in MODELS]
    transport.close()
    assert len({parameters["generator"] for parameters in found}) == 1
    assert {(parameters["domain"], parameters["cut"]) for parameters in found} == {("ffhq", "16")}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "shared/photos").glob("*")), ids=lambda path: path.stem
)
def test_real_photos(path, inverter):
    found = inverter.invert(path)
    assert found.inversion.photo_name == path.name
    assert found.reconstruction.std() > 10
