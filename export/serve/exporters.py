"""Writes a graph as an ONNX or a TorchScript file; atomic."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from export.serve.bounds import bound_onnx, bound_traced
from export.serve.graph import Graph

OPSET = 20
CPU = torch.device("cpu")


def to_onnx(graph: Graph, module: nn.Module, target: Path) -> None:
    """Export by the dynamo exporter, and check the file."""
    batch = {name: {0: "batch"} if graph.batched else {} for name in graph.inputs}
    dims = {
        name: dict.fromkeys({**batch[name], **graph.dynamic.get(name, {})}, torch.export.Dim.DYNAMIC)
        for name in graph.inputs
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            tuple(graph.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple(dims.values()),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    bound_onnx(graph, model)
    partial = _partial(target)
    onnx.save(model, partial)
    onnx.checker.check_model(partial, full_check=True)
    partial.replace(target)


def to_torchscript(graph: Graph, module: nn.Module, target: Path) -> None:
    """Export by tracing; freezing drops the weights that the graph does not use."""
    trace, freeze, save = (cast("Any", f) for f in (torch.jit.trace, torch.jit.freeze, torch.jit.save))
    with warnings.catch_warnings(), torch.no_grad():
        # It warns that asserts on shapes are branches, and that TorchScript is old.
        warnings.simplefilter("ignore")
        bound = bound_traced(graph, module)
        traced = freeze(trace(module, tuple(graph.inputs.values()), check_trace=False))
        bound.remove()
        buffer = io.BytesIO()
        save(traced, buffer)
    partial = _partial(target)
    partial.write_bytes(buffer.getvalue())
    partial.replace(target)


def load_torchscript(path: Path, device: torch.device = CPU) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """Load an exported TorchScript file onto a device."""
    load = cast("Any", torch.jit.load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: Callable[..., Tensor | tuple[Tensor, ...]] = load(str(path), map_location=device).eval()
    return module


@torch.no_grad()
def signature(graph: Graph, module: nn.Module) -> dict[str, list[list[Any]]]:
    """``inputs`` and ``outputs`` as lists of name, dtype and dims, without the batch; a dynamic dim is -1."""
    results = module(*graph.inputs.values())
    outputs = dict(zip(graph.outputs, (results,) if isinstance(results, Tensor) else results, strict=True))

    def rows(tensors: dict[str, Tensor]) -> list[list[Any]]:
        found = []
        for name, tensor in tensors.items():
            dims = [-1 if i in graph.dynamic.get(name, {}) else n for i, n in enumerate(tensor.shape)]
            found.append([name, str(tensor.dtype).removeprefix("torch."), dims[1:] if graph.batched else dims])
        return found

    return {"inputs": rows(graph.inputs), "outputs": rows(outputs)}


def _partial(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.part")
