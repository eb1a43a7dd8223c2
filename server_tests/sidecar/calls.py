"""Jobs over the wire: sending them, reading their events, and the side-car's metrics."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from server.sidecar import LocalSidecar

STEPS = 8
LIMITS = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]
# Makes a job; the arguments are fields of ``Options``.
Make = Callable[..., pb.RefineRequest]


@contextmanager
def stub(url: str) -> Iterator[refine_pb2_grpc.RefinementStub]:
    with grpc.insecure_channel(url, options=LIMITS) as channel:
        yield refine_pb2_grpc.RefinementStub(channel)


def until(call: Iterator[pb.RefineEvent], kind: str) -> pb.RefineEvent:
    """Read the stream up to the first event of a kind."""
    return next(event for event in call if event.WhichOneof("event") == kind)


def rest(call: Iterator[pb.RefineEvent]) -> tuple[list[pb.RefineEvent], grpc.RpcError]:
    """The remaining events of a stream that ends with an error, and the error."""
    events = []
    try:
        for event in call:
            events.append(event)
    except grpc.RpcError as error:
        return events, error
    raise AssertionError("the stream did not break off")


def metric(sidecar: LocalSidecar, name: str) -> float:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sidecar.metrics_url, timeout=30) as page:
        found = re.search(rf"^{re.escape(name)} (\S+)$", page.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def values(message: pb.Tensor) -> np.ndarray:
    return np.frombuffer(message.data, "<f4").reshape(tuple(message.shape))
