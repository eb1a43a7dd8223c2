"""The codec: every value comes back as it was, and what does not fit is refused in one sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from protocol import codec
from protocol import refine_pb2 as pb
from protocol.codec import from_tensor, to_tensor
from protocol.limits import ContractError
from protocol.messages import Finished, State
from protocol.options import LIMITS, Options
from protocol.terms import TERMS, Metrics, Terms

NAN, INFINITY = math.nan, math.inf
W = np.zeros((14, 512), np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (pb.Options(steps=10_001), "10001: expected a whole number from 1 to 10000"),
        (pb.Options(seconds=NAN), "seconds nan:"),
        (pb.Options(seconds=-1), "-1: expected a number above 0 and up to 86400"),
        (pb.Options(seconds=INFINITY), "inf:"),
        (pb.Options(target=NAN), "distance nan:"),
        (pb.Options(target=10.5), "10.5: expected a number above 0 and up to 10"),
        (pb.Options(weights=pb.Weights(f=NAN)), "weight of f nan: expected a number from 0 to 1e"),
        (pb.Options(weights=pb.Weights(mse=-1)), "weight of mse"),
        (pb.Options(weights=pb.Weights(perceptual=2e6)), "weight of perceptual"),
        (pb.Options(weights=pb.Weights(p_norm=INFINITY)), "weight of p_norm"),
    ],
)
def test_numbers_out_of_range_are_refused(options: pb.Options, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        codec.from_options(options)


def test_what_is_not_said_is_the_presets() -> None:
    assert codec.from_options(pb.Options()) == Options()
    said = pb.Options(preset="paper", steps=7, seconds=1.5, target=0.25, weights=pb.Weights(f=0))
    found = codec.from_options(said)
    assert (found.preset, found.steps, found.seconds, found.target) == ("paper", 7, 1.5, 0.25)
    assert found.weights == {"f": 0.0}
    assert (found.checkpoint_every, found.progress_every, found.preview_every) == (25, None, None)


@pytest.mark.parametrize("name", list(LIMITS))
def test_0_is_a_value_and_not_an_absent_one(name: str) -> None:
    with pytest.raises(ContractError, match=" 0: expected"):
        codec.from_options(pb.Options(**{name: 0}))


@given(
    st.builds(
        Options,
        preset=st.sampled_from(["default", "paper"]),
        steps=st.none() | st.integers(1, 10_000),
        seconds=st.none() | st.floats(2.0**-20, 86_400, width=32),
        target=st.none() | st.floats(2.0**-20, 10, width=32),
        weights=st.dictionaries(st.sampled_from(TERMS), st.floats(0, 1e6, width=32)),
        clip=st.none() | st.floats(2.0**-20, 1000, width=32),
        checkpoint_every=st.integers(1, 10_000),
        progress_every=st.none() | st.integers(1, 10_000),
        preview_every=st.none() | st.integers(1, 10_000),
    )
)
def test_options_come_back(options: Options) -> None:
    assert codec.from_options(pb.Options.FromString(codec.to_options(options).SerializeToString())) == options


def test_the_dataclasses_have_the_fields_of_the_wire() -> None:
    assert set(vars(Options())) == set(pb.Options.DESCRIPTOR.fields_by_name)
    assert set(TERMS) == set(pb.Weights.DESCRIPTOR.fields_by_name)
    assert {"total", *TERMS} == set(pb.Terms.DESCRIPTOR.fields_by_name)
    metrics = Metrics(stlpips_alex=0, psnr_256=0, psnr=0)
    assert set(vars(metrics)) == set(pb.Metrics.DESCRIPTOR.fields_by_name)


FLOATS = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), elements=st.floats(width=32)
)


@given(FLOATS)
def test_tensors_keep_every_bit(value: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    found = from_tensor(pb.Tensor.FromString(to_tensor(value).SerializeToString()), "it")
    assert (found.shape, found.dtype) == (value.shape, np.float32)
    assert found.tobytes() == value.tobytes()
    assert found.flags.writeable


@given(st.lists(st.integers(0, 2**32 - 1), max_size=6), st.binary(max_size=64))
def test_tensors_that_do_not_fit_are_refused(shape: list[int], data: bytes) -> None:
    sent = pb.Tensor(shape=shape, data=data)
    if len(shape) <= 4 and 4 * math.prod(shape) == len(data) and max(shape, default=0) <= codec.MAX_DIMENSION:
        assert (list(from_tensor(sent, "it").shape), from_tensor(sent, "it").nbytes) == (shape, len(data))
        return
    message = r"^invalid it: \d+ (bytes do not fill float32 .{1,100}|dimensions, expected at most 4)$"
    with pytest.raises(ContractError, match=message):
        from_tensor(sent, "it")


@given(FLOATS, st.integers(0, 10_000), st.none() | st.just(Terms(5.0, 4.0, 3.0, 2.0, 1.0)))
def test_checkpoints_come_back(value: np.ndarray[Any, np.dtype[np.float32]], step: int, terms: Terms | None) -> None:
    found = codec.from_checkpoint(codec.to_checkpoint(State(step, 2.5, value, W, {"w": W, "moment": value}, terms)))
    assert (found.step, found.seconds, found.terms) == (step, 2.5, terms)
    assert list(found.optimiser) == ["w", "moment"]
    assert found.f.tobytes() == found.optimiser["moment"].tobytes() == value.tobytes()


def test_metrics_that_are_not_known_are_absent() -> None:
    state = State(1, 0.5, W, W, {}, None)
    metrics = Metrics(stlpips_alex=0.25, psnr_256=20, psnr=19, identity=None, landmarks=0.5, face=False)
    done = codec.to_event(Finished(state, "target", metrics)).done
    assert done.reason == pb.Done.TARGET
    assert [field.name for field, _ in done.metrics.ListFields()] == [
        "stlpips_alex",
        "psnr_256",
        "psnr",
        "landmarks",
        "face",
    ]
    assert not done.HasField("terms")
    assert not codec.to_event(Finished(state, "seconds", None)).done.HasField("metrics")
    for kept in (False, True):
        back = codec.from_event(codec.to_event(Finished(state, "steps", metrics, start_kept=kept)))
        assert isinstance(back, Finished)
        assert back.start_kept is kept
