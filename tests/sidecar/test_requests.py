"""Requests between the wire and the engine: what is refused with which sentence, and what comes back unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from protocol import refine_pb2 as pb
from sidecar.job import InvalidRequest, Metrics, State, Terms
from sidecar.optimise.recipe import chosen
from sidecar.service import convert
from sidecar.service.convert import array, tensor
from tests.sidecar.fakes import Running, W, asked, failure, running

NAN, INFINITY = math.nan, math.inf


@pytest.fixture(scope="module")
def side() -> Iterator[Running]:
    with running() as started:
        yield started


def given_tensor(shape: list[int], data: bytes = b"1234") -> pb.Tensor:
    return pb.Tensor(shape=shape, data=data)


def resumed(**fields: Any) -> Callable[[pb.RefineRequest], object]:
    checkpoint = {"step": 1, "f": asked().f, "w_m_plus": asked().w_m_plus, **fields}
    return lambda request: request.resume.CopyFrom(pb.Checkpoint(**checkpoint))


BAD: dict[str, tuple[Callable[[pb.RefineRequest], object], str]] = {
    "another generator": (
        lambda r: setattr(r, "generator", "0" * 5000),
        f"The inversion belongs to generator '{'0' * 40}', and this is ffffffffffffffff.",
    ),
    "no generator": (lambda r: r.ClearField("generator"), "The inversion belongs to generator '', and this is f"),
    "another domain": (
        lambda r: setattr(r, "domain", "cars\n"),
        r"This side-car serves the domain fake, not 'cars\n'.",
    ),
    "request id": (lambda r: setattr(r, "request_id", "a b"), "A request_id has at most 64 of the characters A-Z"),
    "long request id": (lambda r: setattr(r, "request_id", "a" * 65), "A request_id has at most 64"),
    "request id of two lines": (lambda r: setattr(r, "request_id", "a\n"), "A request_id has at most 64"),
    "no f": (lambda r: r.ClearField("f"), "f has 0 bytes, and its shape is [] of float32."),
    "too few bytes": (lambda r: r.f.CopyFrom(given_tensor([512, 8, 8])), "f has 4 bytes, and its shape is [512, 8, 8]"),
    "overflow": (
        lambda r: r.f.CopyFrom(given_tensor([2**31, 2**31, 4])),
        "f has 4 bytes, and its shape is [2147483648",
    ),
    "empty and huge": (
        lambda r: r.w_m_plus.CopyFrom(given_tensor([0, 2**32 - 1, 2**32 - 1, 2**32 - 1], b"")),
        "w_m_plus has 0 bytes, and its shape is [0, 4294967295",
    ),
    "many dimensions": (
        lambda r: r.f_o.CopyFrom(given_tensor([1] * 100_000)),
        "f_o has 100000 dimensions, more than 4.",
    ),
    "another cut": (lambda r: r.f.CopyFrom(given_tensor([1])), "The engine refuses it."),
    "unknown preset": (lambda r: setattr(r.options, "preset", "best"), "The engine refuses it."),
    "rare checkpoints": (lambda r: setattr(r.options, "checkpoint_every", 10_001), "The option checkpoint_every is at"),
    "rare progress": (lambda r: setattr(r.options, "progress_every", 10_001), "most 10000, not 10001."),
    "rare previews": (lambda r: setattr(r.options, "preview_every", 2**32 - 1), "most 10000, not 4294967295."),
    "no photo": (lambda r: r.ClearField("pixels"), "The request has no photo."),
    "an empty photo": (lambda r: setattr(r, "encoded", b""), "The photo is not a whole PNG, JPEG or WebP file."),
    "a photo of another format": (lambda r: setattr(r, "encoded", b"GIF89a"), "The photo is not a whole PNG, JPEG or"),
    "a photo over the cap": (
        lambda r: setattr(r, "encoded", bytes(16 * 2**20 + 1)),
        "The photo has 16777217 bytes, more than 16777216.",
    ),
    "not square": (lambda r: setattr(r.pixels, "width", 20), "The photo is 20x16 pixels, and must be square."),
    "too few pixels": (lambda r: setattr(r.pixels, "rgb", b"1"), "The photo has 1 bytes, and its size needs 768."),
    "pixels over the cap": (
        lambda r: r.pixels.CopyFrom(pb.Pixels(width=4097, height=4097)),
        "The photo is 4097x4097 pixels, and its side must be 16 to 4096.",
    ),
    "the most tensors": (
        resumed(state=[pb.NamedTensor()] * 65),
        "The checkpoint's state has 65 tensors, more than 64.",
    ),
    "a state's tensor": (
        resumed(state=[pb.NamedTensor(name="x" * 50, value=given_tensor([2]))]),
        f"the checkpoint's '{'x' * 40}' has 4 bytes, and its shape is [2] of float32.",
    ),
    "a tensor twice": (
        resumed(state=[pb.NamedTensor(name="w", value=given_tensor([1]))] * 2),
        "The checkpoint's state names a tensor twice.",
    ),
    "a checkpoint without f": (resumed(f=None), "the checkpoint's f has 0 bytes, and its shape is [] of float32."),
    "a checkpoint's styles": (resumed(w_m_plus=given_tensor([2])), "the checkpoint's w_m_plus has 4 bytes, and its"),
    "terms": (resumed(terms=pb.Terms(f=NAN)), "The checkpoint's terms hold numbers that are not finite."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence(side: Running, name: str) -> None:
    change, says = BAD[name]
    request = asked()
    change(request)
    before = side.metric('refine_jobs_total{outcome="refused"}')
    events, code, sentence = failure(side.refine(request))
    assert (code, events) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert says in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert side.metric('refine_jobs_total{outcome="refused"}') == before + 1
    assert side.metric("refine_queue_depth") == side.metric("refine_active_jobs") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (pb.Options(steps=10_001), "from 1 to 10000, not 10001"),
        (pb.Options(seconds=NAN), "not nan"),
        (pb.Options(seconds=-1), "above 0 and at most 86400, not -1"),
        (pb.Options(seconds=INFINITY), "not inf"),
        (pb.Options(target=NAN), "not nan"),
        (pb.Options(target=10.5), "at most 10, not 10.5"),
        (pb.Options(weights=pb.Weights(f=NAN)), "weight of f is from 0 to 1e"),
        (pb.Options(weights=pb.Weights(mse=-1)), "weight of mse"),
        (pb.Options(weights=pb.Weights(perceptual=2e6)), "weight of perceptual"),
        (pb.Options(weights=pb.Weights(p_norm=INFINITY)), "weight of p_norm"),
    ],
)
def test_numbers_reach_the_recipe_as_they_are(options: pb.Options, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        chosen(convert.options(options))


def test_what_is_not_said_is_the_presets() -> None:
    assert chosen(convert.options(pb.Options())) == chosen(convert.options(pb.Options(preset="default")))
    said = convert.options(pb.Options(preset="paper", steps=7, seconds=1.5, target=0.25, weights=pb.Weights(f=0)))
    assert (said.preset, said.steps, said.seconds, said.target, said.weights) == ("paper", 7, 1.5, 0.25, {"f": 0.0})
    cadence = convert.cadence(pb.Options())
    assert (cadence.checkpoint, cadence.progress, cadence.preview) == (25, None, None)


FLOATS = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), elements=st.floats(width=32)
)


@given(FLOATS)
def test_tensors_keep_every_bit(value: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    found = array(pb.Tensor.FromString(tensor(value).SerializeToString()), "it")
    assert (found.shape, found.dtype) == (value.shape, np.float32)
    assert found.tobytes() == value.tobytes()
    assert found.flags.writeable


@given(st.lists(st.integers(0, 2**32 - 1), max_size=6), st.binary(max_size=64))
def test_tensors_that_do_not_fit_are_refused(shape: list[int], data: bytes) -> None:
    sent = pb.Tensor(shape=shape, data=data)
    if len(shape) <= 4 and 4 * math.prod(shape) == len(data) and max(shape, default=0) <= convert.MAX_DIMENSION:
        assert (list(array(sent, "it").shape), array(sent, "it").nbytes) == (shape, len(data))
        return
    with pytest.raises(InvalidRequest, match=r"^it has \d+ (bytes|dimensions), .{1,100}\.$"):
        array(sent, "it")


@given(FLOATS, st.integers(0, 10_000), st.none() | st.just(Terms(5.0, 4.0, 3.0, 2.0, 1.0)))
def test_checkpoints_come_back(value: np.ndarray[Any, np.dtype[np.float32]], step: int, terms: Terms | None) -> None:
    message = convert.checkpoint(State(step, 2.5, value, W, {"w": W, "moment": value}, terms))
    found = convert.resume(pb.RefineRequest(resume=message))
    assert found is not None
    assert (found.step, found.seconds, found.terms) == (step, 2.5, terms)
    assert list(found.optimiser) == ["w", "moment"]
    assert found.f.tobytes() == found.optimiser["moment"].tobytes() == value.tobytes()


def test_a_request_without_a_checkpoint_resumes_nothing() -> None:
    assert convert.resume(asked()) is None


def test_metrics_that_are_not_known_are_absent() -> None:
    state = State(1, 0.5, W, W, {}, None)
    metrics = Metrics(stlpips_alex=0.25, psnr_256=20, psnr=19, identity=None, landmarks=0.5, face=False)
    done = convert.done(state, "target", metrics)
    assert done.reason == pb.Done.TARGET
    assert [field.name for field, _ in done.metrics.ListFields()] == [
        "stlpips_alex",
        "psnr_256",
        "psnr",
        "landmarks",
        "face",
    ]
    assert not done.HasField("terms")
    assert not convert.done(state, "seconds", None).HasField("metrics")
