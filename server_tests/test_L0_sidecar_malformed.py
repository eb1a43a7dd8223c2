"""A thousand jobs that are wrong in every way that the wire allows, while good ones go on and stay right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from protocol import refine_pb2 as pb
from server.sidecar import LocalSidecar
from server_tests.good import Good
from server_tests.test_L0_sidecar_lifecycle import Make, job, metric, sidecar, stub, values, weights

__all__ = ["job", "sidecar", "weights"]  # fixtures
COUNT = 1000


def bad_job(draw: random.Random, make: Make) -> tuple[str, pb.RefineRequest]:
    """A job that the side-car must refuse, and what is wrong with it."""
    bad = make(steps=1)
    tensor = getattr(bad, draw.choice(["f", "w_m_plus", "f_o"]))
    side = draw.choice([0, 1, 15, 5000, 2**31 - 1])
    wrong: dict[str, Callable[[], object]] = {
        "dtype": lambda: setattr(tensor, "data", tensor.data[: len(tensor.data) // 2]),
        "rank": lambda: tensor.shape.insert(0, 1),
        "shape": lambda: tensor.shape.__setitem__(0, draw.choice([0, 1, 2**16, 2**31, 2**32 - 1])),
        "turned": lambda: (tensor.shape.reverse(), tensor.shape.append(1)),
        "empty": lambda: tensor.ClearField("data"),
        "nan": lambda: setattr(tensor, "data", np.float32(np.nan).tobytes() + tensor.data[4:]),
        "infinite": lambda: setattr(tensor, "data", tensor.data[:-4] + np.float32(-np.inf).tobytes()),
        "pixels": lambda: bad.pixels.MergeFrom(pb.Pixels(width=64, height=64, rgb=bytes(draw.randrange(12288)))),
        "side": lambda: bad.pixels.MergeFrom(pb.Pixels(width=side, height=side)),
        "file": lambda: setattr(bad, "encoded", draw.randbytes(draw.randrange(1, 2000))),
        "half a file": lambda: setattr(bad, "encoded", bad.encoded[: draw.randrange(len(bad.encoded) // 2)]),
        "no photo": lambda: bad.ClearField("encoded"),
        "domain": lambda: setattr(bad, "domain", draw.choice(["", "bedroom", "x" * 10_000])),
        "generator": lambda: setattr(bad, "generator", draw.choice(["", "0" * 16])),
        "steps": lambda: setattr(bad.options, "steps", 2**31),
        "preset": lambda: setattr(bad.options, "preset", "no such thing"),
        "seconds": lambda: setattr(bad.options, "seconds", draw.choice([-1.0, float("nan"), 1e9])),
        "request id": lambda: setattr(bad, "request_id", draw.choice(["two\nlines", "x" * 5000])),
    }
    kind = draw.choice(sorted(wrong))
    wrong[kind]()
    return kind, bad


def test_the_side_car_refuses_and_goes_on(sidecar: LocalSidecar, job: Make) -> None:
    with stub(sidecar.url) as good_stub, stub(sidecar.url) as bad_stub:

        def result() -> np.ndarray:
            *_, last = good_stub.Refine(job(steps=1), timeout=120)
            return values(last.done.w_m_plus)

        expected, refused = result(), metric(sidecar, 'refine_jobs_total{outcome="refused"}')
        draw, seen = random.Random(1), Counter[str]()
        with Good(lambda: np.array_equal(result(), expected)) as good:
            for _ in range(COUNT):
                kind, wrong = bad_job(draw, job)
                seen[kind] += 1
                with pytest.raises(grpc.RpcError) as caught:
                    list(bad_stub.Refine(wrong, timeout=120))
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, (kind, caught.value)
                assert str(caught.value.details()).endswith("."), kind
        assert len(seen) == 18
        assert min(seen.values()) > 20
        assert (good.wrong, good.right > 1) == (0, True)
        assert metric(sidecar, 'refine_jobs_total{outcome="refused"}') - refused == COUNT
        assert metric(sidecar, "refine_active_jobs") == 0
