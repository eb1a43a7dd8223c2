"""Jobs that the side-car must refuse while it serves good ones."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from protocol import refine_pb2 as pb
from server.sidecar import LocalSidecar
from server_tests.good import Good
from server_tests.sidecar.bad_jobs import bad_job
from server_tests.sidecar.calls import STEPS, Make, metric, rest, stub, values

BAD_JOBS = 1000


@pytest.mark.slow
def test_the_side_car_refuses_and_keeps_serving(small: LocalSidecar, job: Make) -> None:
    with stub(small.url) as good_stub, stub(small.url) as bad_stub:

        def result() -> np.ndarray:
            *_, last = good_stub.Refine(job(steps=1), timeout=120)
            return values(last.done.w_m_plus)

        expected, refused = result(), metric(small, 'refine_jobs_total{outcome="refused"}')
        draw, seen = random.Random(1), Counter[str]()
        with Good(lambda: np.array_equal(result(), expected)) as good:
            for _ in range(BAD_JOBS):
                kind, wrong = bad_job(draw, job)
                seen[kind] += 1
                with pytest.raises(grpc.RpcError) as caught:
                    list(bad_stub.Refine(wrong, timeout=120))
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, (kind, caught.value)
                details = str(caught.value.details())
                assert details[0].islower() and not details.endswith((".", ":")), kind
        assert len(seen) == 18
        assert min(seen.values()) > 20
        assert (good.wrong, good.right > 1) == (0, True)
        assert metric(small, 'refine_jobs_total{outcome="refused"}') - refused == BAD_JOBS
        assert metric(small, "refine_active_jobs") == 0


def png_header(side: int) -> bytes:
    """The beginning of a PNG that claims to be a large square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
    )


def spoil(request: pb.RefineRequest, field: str, value: float) -> None:
    tensor = getattr(request, field)
    tensor.data = np.full(tuple(tensor.shape), value, "<f4").tobytes()


BAD: dict[str, tuple[Callable[[pb.RefineRequest], object], str]] = {
    "NaN in f": (lambda r: spoil(r, "f", np.nan), "invalid f: it has numbers that are not finite"),
    "infinite w_m_plus": (
        lambda r: spoil(r, "w_m_plus", np.inf),
        "invalid w_m_plus: it has numbers that are not finite",
    ),
    "NaN in f_o": (lambda r: spoil(r, "f_o", np.nan), "invalid f_o: it has numbers that are not finite"),
    "f of another shape": (lambda r: r.f.CopyFrom(r.w_m_plus), "expected [24, s, s]"),
    "bytes that do not fill the shape": (lambda r: r.f.shape.append(2), "[24, 16, 16, 2]"),
    "styles of another cut": (lambda r: r.w_m_plus.CopyFrom(pb.Tensor(shape=[0, 512])), "[10, 512]"),
    "another generator": (lambda r: setattr(r, "generator", "0" * 16), "belongs to generator `0000000000000000`"),
    "another domain": (lambda r: setattr(r, "domain", "cats"), "unknown domain `cats`: this side-car serves small"),
    "too many steps": (lambda r: setattr(r.options, "steps", 10_001), "10001: expected a whole number from 1 to 10000"),
    "rare checkpoints": (
        lambda r: setattr(r.options, "checkpoint_every", 10_001),
        "expected a whole number from 1 to 10000",
    ),
    "unknown preset": (lambda r: setattr(r.options, "preset", "best"), "unknown preset `best`"),
    "negative seconds": (
        lambda r: setattr(r.options, "seconds", -1),
        "invalid budget of seconds -1: expected a number above 0",
    ),
    "NaN target": (
        lambda r: setattr(r.options, "target", np.nan),
        "invalid target distance nan: expected a number above 0",
    ),
    "weight out of range": (
        lambda r: setattr(r.options.weights, "mse", 1e7),
        "expected a number from 0 to",
    ),
    "no photo": (lambda r: r.ClearField("encoded"), "no photo"),
    "image over the cap": (lambda r: setattr(r, "encoded", png_header(5000)), "5000x5000 pixels"),
    "image cut short": (lambda r: setattr(r, "encoded", png_header(500)), "not a whole PNG, JPEG or WebP"),
    "image not square": (lambda r: r.pixels.MergeFrom(pb.Pixels(width=20, height=30, rgb=bytes(1800))), "20x30"),
    "resumed after its end": (
        lambda r: r.resume.MergeFrom(pb.Checkpoint(step=STEPS + 1, f=r.f, w_m_plus=r.w_m_plus)),
        "checkpoint",
    ),
    "request id": (lambda r: setattr(r, "request_id", "a b"), "invalid request_id: expected at most 64"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_with_one_line(small: LocalSidecar, job: Make, name: str) -> None:
    change, says = BAD[name]
    request = job()
    change(request)
    with stub(small.url) as service:
        events, error = rest(service.Refine(request, timeout=300))
    assert (error.code(), events) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert says in error.details()
    assert error.details()[0].islower() and not error.details().endswith((".", ":"))
    assert "\n" not in error.details()
    assert metric(small, "refine_active_jobs") == 0
