"""Answers of the Python-based backends, through a real server."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from server.triton import LocalTriton
from server_tests import tiny_repository as tiny

SIZES = {"BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}


def numpy_type(kind: str) -> Any:
    return SIZES.get(kind) or np.dtype(kind.lower())


class Affine(torch.nn.Module):
    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if bool((x < 0).any()):
            raise ValueError("x is negative")
        return 2 * x + shift, x.sum(1, keepdim=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    repository = tmp_path_factory.mktemp("repository")
    tiny.add_one(repository)
    tiny.pick(repository)
    tiny.two_outputs(repository)
    tiny.slow(repository)
    tiny.edit(repository)
    tiny.chain(repository)
    tiny.identity(repository, "any_size", "FP32", [-1])
    tiny.identity(repository, "photo", "UINT8", [1024, 1024, 3])
    tiny.every_type(repository)
    with warnings.catch_warnings():
        # Deprecated where it is made, and still what the pytorch backend serves.
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(Affine())
    by_name = {"shift": ("FP32", [2]), "x": ("FP32", [2])}
    by_index = {"B__1": ("FP32", [2]), "A__0": ("FP32", [2])}
    for name, inputs in (("script_by_name", by_name), ("script_by_index", by_index)):
        outputs = {"SUM__1": ("FP32", [1]), "Y__0": ("FP32", [2])}
        version = tiny.write(repository, name, inputs, outputs, batch=8, backend="pytorch", extra=tiny.BATCHED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            script.save(str(version / "model.pt"))
    with LocalTriton(repository, http_port=None, metrics_port=None, grace=0) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalTriton) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.url) as opened:
        yield opened


def tensors(arrays: dict[str, np.ndarray]) -> list[grpc.InferInput]:
    inputs = []
    for name, array in arrays.items():
        inputs.append(grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def infer(client: grpc.InferenceServerClient, model: str, **arrays: np.ndarray) -> Any:
    return client.infer(model, tensors(arrays), client_timeout=60)


def executions(server: LocalTriton, client: grpc.InferenceServerClient, model: str) -> tuple[int, int]:
    """How many inferences a model has answered, and in how many executions."""
    stats = client.get_inference_statistics(model, headers=server.admin_headers).model_stats[0]
    return stats.inference_count, stats.execution_count


def together(count: int, ask: Callable[[int], Any]) -> list[Any]:
    """Ask ``count`` times at once; exceptions are returned in place of answers."""

    def one(index: int) -> Any:
        try:
            return ask(index)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_requests_that_come_together_run_as_batches(server: LocalTriton, client: grpc.InferenceServerClient) -> None:
    before = executions(server, client, "add_one")
    xs = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    answers = together(16, lambda index: infer(client, "add_one", x=xs[index : index + 1]))
    for x, answer in zip(xs, answers, strict=True):
        np.testing.assert_array_equal(answer.as_numpy("y"), x[None] + 1)
    after = executions(server, client, "add_one")
    assert after[0] - before[0] == 16
    assert after[1] - before[1] < 16


def test_requests_of_several_samples_get_their_own_back(client: grpc.InferenceServerClient) -> None:
    xs = [np.full((size, 4), size, np.float32) for size in (1, 3, 2, 1)]
    answers = together(4, lambda index: infer(client, "two_outputs", x=xs[index]))
    for x, answer in zip(xs, answers, strict=True):
        np.testing.assert_array_equal(answer.as_numpy("double"), 2 * x)
        np.testing.assert_array_equal(answer.as_numpy("total"), x.sum(1, keepdims=True))


def test_a_bad_request_fails_alone(server: LocalTriton, client: grpc.InferenceServerClient) -> None:
    before = executions(server, client, "pick")
    indices = [0, 1, 9, 3, 2, 1]
    answers = together(6, lambda place: infer(client, "pick", index=np.array([[indices[place]]], np.int64)))
    for index, answer in zip(indices, answers, strict=True):
        if index == 9:
            assert isinstance(answer, InferenceServerException)
            assert "out of data bounds" in answer.message()
            assert "\n" not in answer.message()
        else:
            assert answer.as_numpy("y") == [[10 + index]]
    after = executions(server, client, "pick")
    assert after[1] - before[1] < 6


def test_requests_of_other_sizes_do_not_disturb_each_other(client: grpc.InferenceServerClient) -> None:
    xs = [np.arange(size, dtype=np.float32)[None] for size in (1, 5, 5, 2, 1, 7)]
    answers = together(6, lambda index: infer(client, "any_size", x=xs[index]))
    for x, answer in zip(xs, answers, strict=True):
        np.testing.assert_array_equal(answer.as_numpy("y"), x)


def test_every_type_round_trips(client: grpc.InferenceServerClient) -> None:
    values = np.array([[0, 1, 2], [3, 100, 255]])
    xs = {kind: values.astype(numpy_type(kind)) for kind in tiny.TYPES}
    answers = together(
        2, lambda row: infer(client, "every_type", **{f"x_{kind}": xs[kind][row : row + 1] for kind in xs})
    )
    for row, answer in enumerate(answers):
        for kind, x in xs.items():
            y = answer.as_numpy(f"y_{kind}")
            assert y.dtype == x.dtype
            np.testing.assert_array_equal(y, x[row : row + 1])


def test_photos_in_batches(client: grpc.InferenceServerClient) -> None:
    photos = np.random.default_rng(1).integers(0, 256, (3, 1024, 1024, 3), np.uint8)
    for answer, photo in zip(
        together(3, lambda index: infer(client, "photo", x=photos[index : index + 1])), photos, strict=True
    ):
        np.testing.assert_array_equal(answer.as_numpy("y")[0], photo)
    np.testing.assert_array_equal(infer(client, "photo", x=photos).as_numpy("y"), photos)


def test_only_the_outputs_asked_for_come_back(client: grpc.InferenceServerClient) -> None:
    x = np.ones((2, 4), np.float32)
    answer = client.infer("two_outputs", tensors({"x": x}), outputs=[grpc.InferRequestedOutput("total")])
    assert [output.name for output in answer.get_response().outputs] == ["total"]
    np.testing.assert_array_equal(answer.as_numpy("total"), [[4], [4]])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.ones((1, 5), np.float32)}, "unexpected shape for input 'x'"),
        ({"x": np.ones((9, 4), np.float32)}, "batch-size must be <= 8"),
        ({"x": np.ones((1, 4), np.float64)}, "FP64"),
        ({"z": np.ones((1, 4), np.float32)}, "'z'"),
        ({}, "expected 1 inputs but got 0"),
    ],
)
def test_wrong_requests_are_refused(
    client: grpc.InferenceServerClient, arrays: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        infer(client, "add_one", **arrays)
    assert says in caught.value.message()
    np.testing.assert_array_equal(infer(client, "add_one", x=np.zeros((1, 4), np.float32)).as_numpy("y"), [[1] * 4])


def test_unknown_model_is_refused(client: grpc.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="'nothing'"):
        infer(client, "nothing", x=np.ones((1, 4), np.float32))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_an_unbatched_ensemble_feeds_a_batching_model(client: grpc.InferenceServerClient, count: int) -> None:
    w, direction = np.array([1, 2, 3], np.float32), np.array([1, 0, -1], np.float32)
    strengths = np.arange(count, dtype=np.float32)
    answer = infer(client, "edit", w=w, direction=direction, strengths=strengths)
    np.testing.assert_array_equal(answer.as_numpy("images"), (w + strengths[:, None] * direction) ** 2)


def test_an_ensemble_refuses_more_than_the_batch_of_its_model(client: grpc.InferenceServerClient) -> None:
    w = np.zeros(3, np.float32)
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8 for 'fine'"):
        infer(client, "edit", w=w, direction=w, strengths=np.zeros(9, np.float32))


def test_an_ensemble_returns_intermediate_tensors(client: grpc.InferenceServerClient) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    answer = infer(client, "chain", x=x)
    np.testing.assert_array_equal(answer.as_numpy("double"), 2 * x)
    np.testing.assert_array_equal(answer.as_numpy("total"), x.sum(1, keepdims=True))
    np.testing.assert_array_equal(answer.as_numpy("y"), 2 * x + 1)


@pytest.mark.parametrize(
    ("model", "names"), [("script_by_name", ("x", "shift")), ("script_by_index", ("A__0", "B__1"))]
)
def test_torchscript(client: grpc.InferenceServerClient, model: str, names: tuple[str, str]) -> None:
    xs = np.array([[1, 2], [3, 4], [-1, 0], [5, 6]], np.float32)
    shift = np.array([[10, 20]], np.float32)

    def ask(index: int) -> Any:
        return infer(client, model, **dict(zip(names, (xs[index : index + 1], shift), strict=True)))

    for x, answer in zip(xs, together(4, ask), strict=True):
        if x.min() < 0:
            assert isinstance(answer, InferenceServerException)
            assert "x is negative" in answer.message()
        else:
            np.testing.assert_array_equal(answer.as_numpy("Y__0"), 2 * x[None] + shift)
            np.testing.assert_array_equal(answer.as_numpy("SUM__1"), [[x.sum()]])


def test_a_timed_out_request_does_not_harm_the_server(client: grpc.InferenceServerClient) -> None:
    arrays = {"x": np.array([5], np.float32), "rounds": np.array([20000], np.int64)}
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", tensors(arrays), client_timeout=0.2)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    arrays["rounds"][0] = 1
    np.testing.assert_array_equal(infer(client, "slow", **arrays).as_numpy("y"), [5])


def test_a_cancelled_request_does_not_run(client: grpc.InferenceServerClient) -> None:
    x = np.array([5], np.float32)
    answers: dict[str, Any] = {}
    done = {"running": threading.Event(), "waiting": threading.Event()}

    def ask(name: str, rounds: int) -> Any:
        def keep(result: Any, error: Any) -> None:
            answers[name] = error or result
            done[name].set()

        return client.async_infer("slow", tensors({"x": x, "rounds": np.array([rounds], np.int64)}), keep)

    ask("running", 10_000)
    # Would keep the only instance busy for hours.
    ask("waiting", 10**9).cancel()
    assert done["waiting"].wait(60)
    assert answers["waiting"].status() == "StatusCode.CANCELLED"
    assert done["running"].wait(60)
    np.testing.assert_array_equal(answers["running"].as_numpy("y"), x)
    np.testing.assert_array_equal(infer(client, "slow", x=x, rounds=np.array([1], np.int64)).as_numpy("y"), x)
