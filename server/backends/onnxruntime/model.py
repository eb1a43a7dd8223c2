"""The Python-based ``onnxruntime`` backend: runs ``<version>/model.onnx`` of an unchanged repository.

Honours the config parameters ``intra_op_thread_count``, ``inter_op_thread_count`` and ``enable_mem_arena`` as the
native backend does, except that the arena is off by default. Uses CUDA where the instance is of the kind GPU and ONNX
Runtime brings it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from server.backends.common.batching import Array, ModelTensor, bounds, count, respond, specs
else:
    from batching import bounds, count, respond, specs

_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}


class TritonPythonModel:
    """One instance of a model, with its own session."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph and check it against the config.

        Raises:
            ValueError: the config does not fit the graph, or asks for what is not supported.
            FileNotFoundError: there is no graph.
        """
        # Imported here, because the server also loads this file only to complete the config.
        import onnxruntime

        config: dict[str, Any] = json.loads(args["model_config"])
        self._batching = config["max_batch_size"] > 0
        inputs, outputs = specs(config, "input"), specs(config, "output")
        self._largest = bounds(config, inputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count(config, "intra_op_thread_count") or 0
        options.inter_op_num_threads = count(config, "inter_op_thread_count") or 0
        # The arena keeps its largest peak for ever: 370 MB for the fine half, and more after a batch.
        options.enable_cpu_mem_arena = bool(count(config, "enable_mem_arena"))
        # Idle sessions must not burn the cores that the next model of an ensemble needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        path = Path(args["model_repository"], args["model_version"], config["default_model_filename"] or "model.onnx")
        if not path.is_file():
            raise FileNotFoundError(f"there is no graph at {path}")
        providers = _providers(args["model_instance_kind"], int(args["model_instance_device_id"]))
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        _check(self._session.get_inputs(), inputs, "input", batching=self._batching)
        _check(self._session.get_outputs(), outputs, "output", batching=self._batching)
        if missing := {node.name for node in self._session.get_inputs()} - {spec.name for spec in inputs}:
            raise ValueError(f"the graph needs the inputs {sorted(missing)}, which the config lacks")
        pb_utils.Logger.log_info(f"{args['model_instance_name']}: {', '.join(self._session.get_providers())}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer a batch of requests, in order."""
        return respond(requests, self._run, batching=self._batching, largest=self._largest)

    def _run(self, inputs: dict[str, Array], outputs: list[str]) -> Sequence[Array]:
        arrays: Sequence[Array] = self._session.run(outputs, inputs)
        return arrays


def _providers(kind: str, device: int) -> list[Any]:
    import onnxruntime

    if kind == "GPU":
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return [("CUDAExecutionProvider", {"device_id": device}), "CPUExecutionProvider"]
        pb_utils.Logger.log_warn("this ONNX Runtime has no CUDA (install onnxruntime-gpu); the model runs on the CPU")
    return ["CPUExecutionProvider"]


def _check(nodes: Sequence[Any], wanted: Sequence[ModelTensor], key: str, *, batching: bool) -> None:
    found = {node.name: node for node in nodes}
    for spec in wanted:
        if spec.name not in found:
            raise ValueError(f"the graph has no {key} '{spec.name}'; it has {', '.join(found)}")
        node = found[spec.name]
        if _TYPES.get(node.type) != spec.data_type:
            raise ValueError(f"{key} '{spec.name}' is {spec.data_type} in the config and {node.type} in the graph")
        dims = [dim if isinstance(dim, int) else -1 for dim in node.shape]
        first_any = 1 if batching else 0
        fits = len(dims) == len(spec.dims) and all(
            have in (-1, want) or (want == -1 and place >= first_any)
            for place, (have, want) in enumerate(zip(dims, spec.dims, strict=True))
        )
        # ONNX Runtime gives no dims both for a scalar and for a shape the graph does not state.
        if dims and not fits:
            raise ValueError(f"{key} '{spec.name}' is {list(spec.dims)} in the config and {dims} in the graph")
