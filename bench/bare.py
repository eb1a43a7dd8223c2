"""A model of the repository without its server: its graph, or the chain of graphs of an ensemble, in this process.

Exceptions::

    ValueError
    +-- ModelError  the model or its graph is missing or unreadable
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

Array = NDArray[np.generic]
Arrays = dict[str, Array]


class ModelError(ValueError):
    """The model or its graph is missing or unreadable."""


@dataclass(frozen=True)
class _Step:
    """One graph of a chain: its session, and a map from its own tensor names to those of the chain."""

    session: Any
    inputs: dict[str, str]
    outputs: dict[str, str]

    def run(self, tensors: Arrays) -> None:
        """Run the graph and add its outputs to ``tensors``."""
        feed = {own: tensors[name] for own, name in self.inputs.items()}
        arrays = self.session.run(list(self.outputs), feed)
        tensors.update(zip(self.outputs.values(), arrays, strict=True))


class Bare:
    """ONNX Runtime sessions of a model, with default options and the thread counts of its config.

    Args:
        repository: the model repository.
        model: a model with a graph, or an ensemble of them.

    Raises:
        ModelError: the model is missing, not built, or its config is invalid.
    """

    def __init__(self, repository: Path, model: str) -> None:
        config = _config(repository, model)
        self.outputs = tuple(output.name for output in config.output)
        self._steps: list[_Step] = []
        if config.platform == "ensemble":
            for step in config.ensemble_scheduling.step:
                part = _config(repository, step.model_name)
                self._steps.append(_Step(_session(repository, part), dict(step.input_map), dict(step.output_map)))
        else:
            inputs = {tensor.name: tensor.name for tensor in config.input}
            self._steps.append(_Step(_session(repository, config), inputs, {name: name for name in self.outputs}))
        known = {tensor.name for tensor in config.input}
        for one in self._steps:
            if missing := set(one.inputs.values()) - known:
                raise ModelError(
                    f"no step of ensemble `{model}` produces {', '.join(sorted(missing))} before it is used"
                )
            known |= set(one.outputs.values())

    @property
    def provider(self) -> str:
        """The execution provider, such as CPUExecutionProvider."""
        return str(self._steps[0].session.get_providers()[0])

    def run(self, feed: Arrays) -> Arrays:
        """Compute the outputs by name, batch first if the model batches. Thread-safe."""
        tensors = dict(feed)
        for step in self._steps:
            step.run(tensors)
        return {name: tensors[name] for name in self.outputs}


def _config(repository: Path, model: str) -> Any:
    path = repository / model / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except FileNotFoundError as exc:
        raise ModelError(f"no model `{model}` in {repository}") from exc
    except text_format.ParseError as exc:
        raise ModelError(f"cannot read {path}: {exc}") from exc


def _session(repository: Path, config: Any) -> Any:
    folder = repository / config.name
    versions = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    graph = folder / str(max(versions, default=1)) / (config.default_model_filename or "model.onnx")
    if not graph.is_file():
        raise ModelError(f"{graph} does not exist: run `python -m export repository`")
    options = onnxruntime.SessionOptions()
    parameters = config.parameters
    options.intra_op_num_threads = int(parameters["intra_op_thread_count"].string_value or 0)
    options.inter_op_num_threads = int(parameters["inter_op_thread_count"].string_value or 0)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=_providers())
    except Exception as exc:  # ONNX Runtime's exceptions have no common base
        raise ModelError(f"cannot load {graph}: {exc}") from exc


def _providers() -> list[str]:
    # The server's own choice: CUDA if this build has it, with the CPU as fallback.
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
