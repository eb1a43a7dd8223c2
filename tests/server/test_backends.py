"""The batching of the Python-based backends, with the server's own module replaced by a small one."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import server

BACKENDS = Path(server.__file__).parent / "backends"


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self.array = name, array

    @classmethod
    def from_dlpack(cls, name: str, capsule: Any) -> Tensor:
        class Holder:
            def __dlpack__(self, **_: object) -> Any:
                return capsule

            def __dlpack_device__(self) -> tuple[int, int]:
                return 1, 0

        return cls(name, np.from_dlpack(Holder()))

    def name(self) -> str:
        return self._name

    def __dlpack__(self, **options: object) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Request:
    def __init__(self, outputs: Sequence[str] = ("y",), *, cancelled: bool = False, **arrays: np.ndarray) -> None:
        self._outputs, self._cancelled, self._arrays = outputs, cancelled, arrays

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self._arrays.items()]

    def requested_output_names(self) -> list[str]:
        return list(self._outputs)

    def request_id(self) -> str:
        return ""

    def is_cancelled(self) -> bool:
        return self._cancelled


class Error:
    CANCELLED = 9
    INVALID_ARG = 3

    def __init__(self, message: str, code: int = 0) -> None:
        self.message, self.code = message, code


class Response:
    def __init__(self, output_tensors: list[Tensor], error: Error | None = None) -> None:
        self.arrays = {tensor.name(): tensor.array for tensor in output_tensors}
        self.error = error


@pytest.fixture
def batching(monkeypatch: pytest.MonkeyPatch) -> Any:
    utils = types.ModuleType("triton_python_backend_utils")
    logger = types.SimpleNamespace(log_info=lambda _: None, log_warn=lambda _: None, log_error=lambda _: None)
    vars(utils).update(Tensor=Tensor, TritonError=Error, InferenceResponse=Response, Logger=logger)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    module = load(BACKENDS / "common" / "batching.py", "batching")
    monkeypatch.setitem(sys.modules, "batching", module)
    return module


def load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    del sys.modules[name]
    return module


class Doubler:
    """A model ``y = 2x``, ``n = batch size`` that refuses negative numbers and remembers the batches it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
        x = inputs["x"]
        self.seen.append(x.shape)
        if (x < 0).any():
            raise ValueError("a number\n is   negative")
        known = {"y": 2 * x, "flat": np.array(len(x))}
        return [known[name] for name in outputs]


def rows(*values: float) -> np.ndarray:
    return np.array([[value] for value in values])


def test_an_input_above_its_bound_is_refused_before_the_model_sees_it(batching: Any) -> None:
    model, columns = Doubler(), [np.zeros((1, size)) for size in (9, 8, 1500)]
    requests = [Request(x=column) for column in columns]
    responses = batching.respond(requests, model, batching=False, largest={"x": 8, "absent": 1})
    assert model.seen == [(1, 8)]
    errors = [response.error and (response.error.code, response.error.message) for response in responses]
    said = "input 'x' has the shape [1, {}], but its dims may be at most 8"
    assert errors == [(Error.INVALID_ARG, said.format(9)), None, (Error.INVALID_ARG, said.format(1500))]


def test_bounds_are_read_from_the_config(batching: Any) -> None:
    config: dict[str, Any] = {"parameters": {"largest_x": {"string_value": "8"}}}
    inputs = [batching.ModelTensor(name, "TYPE_FP32", (-1,)) for name in ("x", "y")]
    assert batching.bounds(config, inputs) == {"x": 8}
    config["parameters"]["largest_x"]["string_value"] = "eight"
    with pytest.raises(ValueError, match="the parameter largest_x is 'eight', not a count"):
        batching.bounds(config, inputs)


def test_requests_of_one_shape_run_as_one(batching: Any) -> None:
    model = Doubler()
    responses = batching.respond([Request(x=rows(1, 2)), Request(x=rows(3))], model, batching=True)
    assert model.seen == [(3, 1)]
    assert [response.arrays["y"].tolist() for response in responses] == [[[2], [4]], [[6]]]


def test_requests_of_other_shapes_run_apart(batching: Any) -> None:
    model = Doubler()
    requests = [Request(x=np.ones((1, 2))), Request(x=np.ones((1, 3))), Request(x=np.ones((1, 2), np.float32))]
    responses = batching.respond(requests, model, batching=True)
    assert model.seen == [(1, 2), (1, 3), (1, 2)]
    assert [response.arrays["y"].shape for response in responses] == [(1, 2), (1, 3), (1, 2)]


def test_a_bad_request_does_not_spoil_its_batch(batching: Any) -> None:
    requests = [Request(x=rows(1)), Request(x=rows(-1)), Request(x=rows(3))]
    responses = batching.respond(requests, Doubler(), batching=True)
    assert responses[1].error.message == "a number is negative"
    assert [responses[place].arrays["y"].tolist() for place in (0, 2)] == [[[2]], [[6]]]
    assert responses[0].error is None


def test_an_output_without_the_batch_runs_its_requests_apart(batching: Any) -> None:
    model = Doubler()
    requests = [Request(["flat", "y"], x=rows(1)), Request(["flat"], x=rows(2))]
    responses = batching.respond(requests, model, batching=True)
    assert model.seen == [(2, 1), (1, 1), (1, 1)]
    assert [response.arrays["flat"] for response in responses] == [1, 1]
    assert "y" not in responses[1].arrays


def test_without_batching_every_request_runs_by_itself(batching: Any) -> None:
    model = Doubler()
    batching.respond([Request(x=rows(1)), Request(x=rows(2))], model, batching=False)
    assert model.seen == [(1, 1), (1, 1)]


def test_a_cancelled_request_does_not_run(batching: Any) -> None:
    model = Doubler()
    responses = batching.respond([Request(x=rows(1), cancelled=True), Request(x=rows(2))], model, batching=True)
    assert model.seen == [(1, 1)]
    assert responses[0].error.code == Error.CANCELLED
    assert responses[1].arrays["y"].tolist() == [[4]]


def test_an_empty_output_passes(batching: Any) -> None:
    responses = batching.respond([Request(x=np.ones((0, 3)))], Doubler(), batching=True)
    assert responses[0].arrays["y"].shape == (0, 3)


def test_specs_put_the_batch_in_front_and_refuse_strings(batching: Any) -> None:
    x = {"name": "x", "data_type": "TYPE_FP32", "dims": [4]}
    scalar = {"name": "s", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}}
    found = batching.specs({"max_batch_size": 8, "input": [x, scalar]}, "input")
    assert [(spec.name, spec.dims) for spec in found] == [("x", (-1, 4)), ("s", (-1,))]
    with pytest.raises(ValueError, match="input 'x' has the type TYPE_STRING, which is not supported here"):
        batching.specs({"max_batch_size": 0, "input": [{**x, "data_type": "TYPE_STRING"}]}, "input")
    with pytest.raises(ValueError, match="lists no output"):
        batching.specs({"max_batch_size": 0, "input": [x]}, "output")


def test_the_onnxruntime_backend_hands_over_threads_and_device(
    batching: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    import onnxruntime

    assert batching
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").touch()
    made: dict[str, Any] = {}

    class Session:
        def __init__(self, _path: Path, options: Any, *, providers: list[Any]) -> None:
            made.update(intra=options.intra_op_num_threads, inter=options.inter_op_num_threads, providers=providers)

        def get_inputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="x", type="tensor(float)", shape=["N", 4])]

        def get_outputs(self) -> list[Any]:
            return [types.SimpleNamespace(name="y", type="tensor(float)", shape=["N", 4])]

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    backend = load(BACKENDS / "onnxruntime" / "model.py", "onnxruntime_backend")
    threads = {f"{name}_op_thread_count": {"string_value": count} for name, count in (("intra", "3"), ("inter", "2"))}
    config = {
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}],
        "parameters": threads,
        "default_model_filename": "",
    }
    arguments = {
        "model_config": json.dumps(config),
        "model_repository": str(tmp_path),
        "model_version": "1",
        "model_instance_kind": "GPU",
        "model_instance_device_id": "1",
        "model_instance_name": "x_0_1",
    }
    backend.TritonPythonModel().initialize(arguments)
    assert (made["intra"], made["inter"]) == (3, 2)
    assert made["providers"] == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]
    backend.TritonPythonModel().initialize({**arguments, "model_instance_kind": "CPU"})
    assert made["providers"] == ["CPUExecutionProvider"]
