"""A model of the repository without its server: its graph, or its ensemble's chain of graphs, in this process.

Exception tree: `ModelError` (a ValueError): the repository lacks the model or its graph, or they cannot be read.
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
    """The repository lacks the model or its graph, or they cannot be read."""


@dataclass(frozen=True)
class _Step:
    """One graph of a chain: its session, and the chain's names of its inputs and outputs, by its own names."""

    session: Any
    inputs: dict[str, str]
    outputs: dict[str, str]

    def run(self, tensors: Arrays) -> None:
        """Add the outputs to ``tensors``."""
        feed = {own: tensors[name] for own, name in self.inputs.items()}
        found = self.session.run(list(self.outputs), feed)
        tensors.update(zip(self.outputs.values(), found, strict=True))


class Bare:
    """The sessions of a model, with ONNX Runtime's defaults and the thread counts of the model's config.

    Args:
        repository: the model repository.
        model: a model with a graph, or an ensemble of such models.

    Raises:
        ModelError: there is no such model, it is not built, or its config cannot be read.
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
                raise ModelError(f"No step of {model} gives {', '.join(sorted(missing))} before it is needed.")
            known |= set(one.outputs.values())

    @property
    def provider(self) -> str:
        """ONNX Runtime's name of what runs the graphs, for example CPUExecutionProvider."""
        return str(self._steps[0].session.get_providers()[0])

    def run(self, feed: Arrays) -> Arrays:
        """Outputs by name, with the batch in front where the model has one; callable from several threads at once."""
        tensors = dict(feed)
        for step in self._steps:
            step.run(tensors)
        return {name: tensors[name] for name in self.outputs}


def _config(repository: Path, model: str) -> Any:
    path = repository / model / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except FileNotFoundError:
        raise ModelError(f"There is no model {model} in {repository}.") from None
    except text_format.ParseError as error:
        raise ModelError(f"{path} cannot be read: {error}.") from None


def _session(repository: Path, config: Any) -> Any:
    folder = repository / config.name
    versions = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    graph = folder / str(max(versions, default=1)) / (config.default_model_filename or "model.onnx")
    if not graph.is_file():
        raise ModelError(f"{graph} is not there: build it with `python -m export repository`.")
    options = onnxruntime.SessionOptions()
    parameters = config.parameters
    options.intra_op_num_threads = int(parameters["intra_op_thread_count"].string_value or 0)
    options.inter_op_num_threads = int(parameters["inter_op_thread_count"].string_value or 0)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=_providers())
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        raise ModelError(f"{graph} cannot be run: {error}") from None


def _providers() -> list[str]:
    # As the server's own choice: CUDA where this ONNX Runtime brings it, and the CPU where there is no such device.
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
