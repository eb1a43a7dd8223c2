"""A model's Triton configuration: typed here, a protobuf message underneath, text on disk.

Only fields that NVIDIA's native backends understand are written. The kind of an instance is left to
Triton (a GPU where there is one).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

TYPES = {"float32": pb.TYPE_FP32, "uint8": pb.TYPE_UINT8}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A named input or output; ``dims`` without the batch dimension, -1 where variable."""

    name: str
    dtype: str  # a key of TYPES
    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EnsembleStep:
    """One model of an ensemble; both maps go from the model's tensor to the ensemble's."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model of the repository: a graph run by a backend, or an ensemble if it has ``steps``."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int  # 0: requests are not batched
    parameters: dict[str, str]
    backend: str = ""
    instances: int = 1
    warmup_runs: int = 2  # the first two runs of an instance are slower
    warmup_dims: dict[str, tuple[int, ...]] = field(default_factory=dict)  # for inputs with variable dims
    steps: tuple[EnsembleStep, ...] = ()

    def message(self) -> pb.ModelConfig:
        """As Triton's own message."""
        config = pb.ModelConfig(name=self.name, max_batch_size=self.max_batch_size)
        for source, target in ((self.inputs, config.input), (self.outputs, config.output)):
            for tensor in source:
                target.add(name=tensor.name, data_type=TYPES[tensor.dtype], dims=tensor.dims)
        for key in sorted(self.parameters):
            config.parameters[key].string_value = self.parameters[key]
        if self.steps:
            config.platform = "ensemble"
            for step in self.steps:
                added = config.ensemble_scheduling.step.add(model_name=step.model, model_version=-1)
                added.input_map.update(step.inputs)
                added.output_map.update(step.outputs)
            return config
        config.backend = self.backend
        config.instance_group.add(name=self.name, count=self.instances, kind=pb.ModelInstanceGroup.KIND_AUTO)
        if self.max_batch_size:
            config.dynamic_batching.SetInParent()
        if self.warmup_runs:
            warmup = config.model_warmup.add(
                name="zeros", batch_size=1 if self.max_batch_size else 0, count=self.warmup_runs
            )
            for tensor in self.inputs:
                dims = self.warmup_dims.get(tensor.name, tensor.dims)
                entry = warmup.inputs[tensor.name]
                entry.data_type, entry.zero_data = TYPES[tensor.dtype], True
                entry.dims.extend(dims)
        return config

    def text(self) -> str:
        """As the text of a ``config.pbtxt``, the same for the same configuration."""
        return str(text_format.MessageToString(self.message()))


def parse(text: str) -> pb.ModelConfig:
    """Read a ``config.pbtxt``."""
    return text_format.Parse(text, pb.ModelConfig())
