"""Writes one graph as an ONNX or a TorchScript file; whole or not at all."""

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

from export.serve.graph import Graph

OPSET = 20
CPU = torch.device("cpu")


def to_onnx(graph: Graph, module: nn.Module, target: Path) -> None:
    """By the dynamo exporter, checked."""
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
    partial = _partial(target)
    onnx.save(program.model_proto, partial)
    onnx.checker.check_model(partial, full_check=True)
    partial.replace(target)


def to_torchscript(graph: Graph, module: nn.Module, target: Path) -> None:
    """By tracing; frozen, so that it holds no weights of the half that it does not run."""
    trace, freeze, save = (cast("Any", f) for f in (torch.jit.trace, torch.jit.freeze, torch.jit.save))
    with warnings.catch_warnings(), torch.no_grad():
        # Asserts on shapes are taken for branches on data, and torch would rather see its own newer format.
        warnings.simplefilter("ignore")
        traced = freeze(trace(module, tuple(graph.inputs.values()), check_trace=False))
        buffer = io.BytesIO()
        save(traced, buffer)
    partial = _partial(target)
    partial.write_bytes(buffer.getvalue())
    partial.replace(target)


def load_torchscript(path: Path, device: torch.device = CPU) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """An exported TorchScript file, on a device."""
    load = cast("Any", torch.jit.load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: Callable[..., Tensor | tuple[Tensor, ...]] = load(str(path), map_location=device).eval()
    return module


@torch.no_grad()
def signature(graph: Graph, module: nn.Module) -> dict[str, list[list[Any]]]:
    """``inputs`` and ``outputs`` as lists of name, dtype and dims; without the batch, variable dims are -1."""
    found = module(*graph.inputs.values())
    outputs = dict(zip(graph.outputs, (found,) if isinstance(found, Tensor) else found, strict=True))

    def told(tensors: dict[str, Tensor]) -> list[list[Any]]:
        rows = []
        for name, tensor in tensors.items():
            dims = [-1 if i in graph.dynamic.get(name, {}) else n for i, n in enumerate(tensor.shape)]
            rows.append([name, str(tensor.dtype).removeprefix("torch."), dims[1:] if graph.batched else dims])
        return rows

    return {"inputs": told(graph.inputs), "outputs": told(outputs)}


def _partial(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.part")
