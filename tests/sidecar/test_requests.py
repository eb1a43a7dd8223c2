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
    "rare checkpoints": (
        lambda r: setattr(r.options, "checkpoint_every", 10_001),
        "The number of steps between checkpoints must be",
    ),
    "rare progress": (
        lambda r: setattr(r.options, "progress_every", 10_001),
        "must be a whole number from 1 to 10000, not 10001.",
    ),
    "rare previews": (lambda r: setattr(r.options, "preview_every", 2**32 - 1), "to 10000, not 4294967295."),
    "no steps": (
        lambda r: setattr(r.options, "steps", 0),
        "The number of steps must be a whole number from 1 to 10000",
    ),
    "no budget": (lambda r: setattr(r.options, "seconds", 0), "The budget of seconds must be a number above 0"),
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
        "The checkpoint has 65 tensors, more than 64.",
    ),
    "a state's tensor": (
        resumed(state=[pb.NamedTensor(name="x" * 50, value=given_tensor([2]))]),
        f"the checkpoint's '{'x' * 40}' has 4 bytes, and its shape is [2] of float32.",
    ),
    "a tensor twice": (
        resumed(state=[pb.NamedTensor(name="w", value=given_tensor([1]))] * 2),
        "The checkpoint names a tensor twice.",
    ),
    "a checkpoint without f": (resumed(f=None), "the checkpoint's f has 0 bytes, and its shape is [] of float32."),
    "a checkpoint's styles": (resumed(w_m_plus=given_tensor([2])), "the checkpoint's w_m_plus has 4 bytes, and its"),
    "terms": (resumed(terms=pb.Terms(f=float("nan"))), "The term f must be a finite number, not nan."),
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
