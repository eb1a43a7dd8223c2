"""Malformed jobs, of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from protocol import refine_pb2 as pb


def bad_job(draw: random.Random, make: Callable[..., pb.RefineRequest]) -> tuple[str, pb.RefineRequest]:
    """A job that the side-car must refuse, and the kind of its fault."""
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
