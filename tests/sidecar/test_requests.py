"""Requests that are refused, each with its sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from protocol import refine_pb2 as pb
from tests.sidecar.fakes import Running, asked, failure, running


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
        f"the inversion belongs to generator `{'0' * 40}`: this side-car serves ffffffffffffffff",
    ),
    "no generator": (
        lambda r: r.ClearField("generator"),
        "the inversion belongs to generator ``: this side-car serves f",
    ),
    "another domain": (lambda r: setattr(r, "domain", "cars\n"), r"unknown domain `cars\n`: this side-car serves fake"),
    "request id": (
        lambda r: setattr(r, "request_id", "a b"),
        "invalid request_id: expected at most 64 characters of A-Z",
    ),
    "long request id": (lambda r: setattr(r, "request_id", "a" * 65), "invalid request_id: expected at most 64"),
    "request id of two lines": (lambda r: setattr(r, "request_id", "a\n"), "invalid request_id: expected at most 64"),
    "no f": (lambda r: r.ClearField("f"), "invalid f: 0 bytes do not fill float32 []"),
    "too few bytes": (
        lambda r: r.f.CopyFrom(given_tensor([512, 8, 8])),
        "invalid f: 4 bytes do not fill float32 [512, 8, 8]",
    ),
    "overflow": (
        lambda r: r.f.CopyFrom(given_tensor([2**31, 2**31, 4])),
        "invalid f: 4 bytes do not fill float32 [2147483648",
    ),
    "empty and huge": (
        lambda r: r.w_m_plus.CopyFrom(given_tensor([0, 2**32 - 1, 2**32 - 1, 2**32 - 1], b"")),
        "invalid w_m_plus: 0 bytes do not fill float32 [0, 4294967295",
    ),
    "many dimensions": (
        lambda r: r.f_o.CopyFrom(given_tensor([1] * 100_000)),
        "invalid f_o: 100000 dimensions, expected at most 4",
    ),
    "another cut": (lambda r: r.f.CopyFrom(given_tensor([1])), "the engine refuses it"),
    "unknown preset": (lambda r: setattr(r.options, "preset", "best"), "the engine refuses it"),
    "rare checkpoints": (
        lambda r: setattr(r.options, "checkpoint_every", 10_001),
        "invalid number of steps between checkpoints 10001: expected",
    ),
    "rare progress": (
        lambda r: setattr(r.options, "progress_every", 10_001),
        "10001: expected a whole number from 1 to 10000",
    ),
    "rare previews": (
        lambda r: setattr(r.options, "preview_every", 2**32 - 1),
        "4294967295: expected a whole number from 1 to 10000",
    ),
    "no steps": (
        lambda r: setattr(r.options, "steps", 0),
        "invalid number of steps 0: expected a whole number from 1 to 10000",
    ),
    "no budget": (lambda r: setattr(r.options, "seconds", 0), "invalid budget of seconds 0: expected a number above 0"),
    "no photo": (lambda r: r.ClearField("pixels"), "invalid request: it has no photo"),
    "an empty photo": (
        lambda r: setattr(r, "encoded", b""),
        "cannot read the photo: not a whole PNG, JPEG or WebP file",
    ),
    "a photo of another format": (
        lambda r: setattr(r, "encoded", b"GIF89a"),
        "cannot read the photo: not a whole PNG, JPEG or",
    ),
    "a photo over the cap": (
        lambda r: setattr(r, "encoded", bytes(16 * 2**20 + 1)),
        "invalid photo: 16777217 bytes, expected at most 16777216",
    ),
    "not square": (lambda r: setattr(r.pixels, "width", 20), "invalid photo: 20x16 pixels, expected a square"),
    "too few pixels": (lambda r: setattr(r.pixels, "rgb", b"1"), "invalid photo: 1 bytes, expected 768"),
    "pixels over the cap": (
        lambda r: r.pixels.CopyFrom(pb.Pixels(width=4097, height=4097)),
        "invalid photo: 4097x4097 pixels, expected a side of 16 to 4096",
    ),
    "the most tensors": (resumed(state=[pb.NamedTensor()] * 65), "invalid checkpoint: 65 tensors, expected at most 64"),
    "a state's tensor": (
        resumed(state=[pb.NamedTensor(name="x" * 50, value=given_tensor([2]))]),
        f"invalid `{'x' * 40}` of the checkpoint: 4 bytes do not fill float32 [2]",
    ),
    "a tensor twice": (
        resumed(state=[pb.NamedTensor(name="w", value=given_tensor([1]))] * 2),
        "invalid checkpoint: a tensor is named twice",
    ),
    "a checkpoint without f": (resumed(f=None), "invalid f of the checkpoint: 0 bytes do not fill float32 []"),
    "a checkpoint's styles": (
        resumed(w_m_plus=given_tensor([2])),
        "invalid w_m_plus of the checkpoint: 4 bytes do not fill",
    ),
    "terms": (resumed(terms=pb.Terms(f=float("nan"))), "invalid term f nan: expected a finite number"),
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
    assert sentence[0].islower() and not sentence.endswith((".", ":"))
    assert "\n" not in sentence
    assert side.metric('refine_jobs_total{outcome="refused"}') == before + 1
    assert side.metric("refine_queue_depth") == side.metric("refine_active_jobs") == 0
