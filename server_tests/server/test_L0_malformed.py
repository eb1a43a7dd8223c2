"""A thousand malformed requests, of every kind, while good requests continue to get right answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as wire
from tritonclient.grpc import service_pb2_grpc

from server.triton import LocalTriton
from server_tests import tiny_repository as tiny
from server_tests.good import Good

COUNT = 1000
TYPES = {"FP32": 4, "FP16": 2, "UINT8": 1, "INT64": 8, "BOOL": 1}
# Refused with a reason; nothing that says of the server that it broke.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,  # of a model that is not there
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def request(
    model: str = "add_one",
    *,
    kind: str = "FP32",
    shape: tuple[int, ...] = (1, 4),
    content: bytes | None = None,
    name: str = "x",
    output: str = "y",
    inputs: int = 1,
) -> wire.ModelInferRequest:
    """A request for ``add_one``; the arguments can make it wrong."""
    made = wire.ModelInferRequest(model_name=model)
    if content is None:
        size = TYPES[kind] * int(np.prod([max(side, 0) for side in shape]))
        content = bytes(size)
    for number in range(inputs):
        tensor = made.inputs.add()
        tensor.name, tensor.datatype = name if number == 0 else f"{name}{number}", kind
        tensor.shape.extend(shape)
        made.raw_input_contents.append(content)
    made.outputs.add().name = output
    return made


def malformed(draw: random.Random) -> tuple[str, wire.ModelInferRequest]:
    """A request that must be refused, and the kind of its fault."""
    wrong: dict[str, Callable[[], wire.ModelInferRequest]] = {
        "dtype": lambda: request(kind=draw.choice(["FP16", "UINT8", "INT64", "BOOL"])),
        "rank": lambda: request(shape=draw.choice([(), (4,), (1, 1, 4), (1, 2, 2), (1,) * 9])),
        "shape": lambda: request(shape=(1, draw.choice([1, 3, 5, 400]))),
        "negative": lambda: request(shape=(1, -draw.randrange(1, 9)), content=bytes(16)),
        "empty": lambda: request(shape=draw.choice([(0, 4), (1, 0)])),
        "batch": lambda: request(shape=(draw.randrange(9, 4000), 4)),
        "oversized": lambda: request(shape=(2**20, 2 ** draw.randrange(20, 40)), content=bytes(16)),
        "short": lambda: request(content=bytes(draw.randrange(0, 16))),
        "long": lambda: request(content=bytes(draw.randrange(17, 10**6))),
        "input": lambda: request(name=draw.choice(["", "X", "x" * 5000, "\u2603"])),
        "more inputs": lambda: request(inputs=draw.randrange(2, 20)),
        "no input": lambda: request(inputs=0),
        "output": lambda: request(output=draw.choice(["z", "Y" * 5000])),
        "model": lambda: request(draw.choice(["", "ADD_ONE", "../add_one", "m" * 10_000])),
        "version": lambda: wire.ModelInferRequest(
            model_name="add_one", model_version=draw.choice(["9", "-1", "one"]), inputs=request().inputs
        ),
        "type": lambda: wire.ModelInferRequest(
            model_name="add_one",
            inputs=[wire.ModelInferRequest.InferInputTensor(name="x", datatype="NOTHING", shape=[1, 4])],
        ),
    }
    kind = draw.choice(sorted(wrong))
    return kind, wrong[kind]()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    repository = tmp_path_factory.mktemp("repository")
    # Without waiting for company.
    tiny.add_one(repository, extra="")
    with LocalTriton(repository, http_port=None, metrics_port=None, grace=0) as started:
        yield started


@pytest.fixture
def infer(server: LocalTriton) -> Iterator[Callable[[wire.ModelInferRequest], Any]]:
    with grpc.insecure_channel(server.url) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        yield lambda asked: call(asked, timeout=60)


def test_triton_refuses_and_keeps_serving(server: LocalTriton, infer: Callable[[wire.ModelInferRequest], Any]) -> None:
    values = np.arange(4, dtype=np.float32)

    def right() -> bool:
        answer = infer(request(content=values.tobytes()))
        return bool(np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), values + 1))

    assert right()
    draw, seen = random.Random(0), Counter[str]()
    with Good(right) as good:
        for _ in range(COUNT):
            kind, wrong = malformed(draw)
            seen[kind] += 1
            with pytest.raises(grpc.RpcError) as caught:
                infer(wrong)
            assert caught.value.code() in REFUSALS, (kind, caught.value)
            assert caught.value.details(), kind
    assert len(seen) == 16
    assert min(seen.values()) > 20
    assert (good.wrong, good.right > 100) == (0, True)
    assert server.is_running
    assert right()


def test_nan_affects_only_its_own_request(infer: Callable[[wire.ModelInferRequest], Any]) -> None:
    """Triton accepts NaN; it spoils only its own row of a batch."""
    rows = np.zeros((3, 4), np.float32)
    rows[1, 2] = np.nan
    answer = infer(request(shape=(3, 4), content=rows.tobytes()))
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(3, 4)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rows))
    np.testing.assert_array_equal(found[[0, 2]], 1)
