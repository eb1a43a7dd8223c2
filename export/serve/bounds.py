"""Bounds on variable dims inside an exported graph: no backend has to know them to refuse what is too large.

In both formats a tensor above its bound fails in the graph's first steps, before anything is expanded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from export.serve.graph import Graph


def bound_onnx(graph: Graph, model: onnx.ModelProto) -> None:
    """Reshape each bounded input to at most its bound: with more in it, that fails."""
    for name, largest in graph.largest.items():
        given = next(value for value in model.graph.input if value.name == name)
        dims = [d.dim_value or largest for d in given.type.tensor_type.shape.dim]
        bounded = f"{name}_bounded"
        for node in model.graph.node:
            for place, used in enumerate(node.input):
                if used == name:
                    node.input[place] = bounded
        model.graph.initializer.append(numpy_helper.from_array(np.array(dims, np.int64), f"{name}_largest"))
        steps = (
            ("Shape", [name], f"{name}_shape"),
            ("Min", [f"{name}_shape", f"{name}_largest"], f"{name}_least"),
            ("Reshape", [name, f"{name}_least"], bounded),
        )
        for place, (kind, inputs, output) in enumerate(steps):
            model.graph.node.insert(place, helper.make_node(kind, inputs, [output]))


def bound_traced(graph: Graph, module: nn.Module) -> RemovableHandle:
    """Expand the first part of each bounded input to all of it: with more than that in it, that fails."""

    def bound(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        return tuple(
            x[: graph.largest[name]].expand(x.shape) if name in graph.largest else x
            for name, x in zip(graph.inputs, inputs, strict=True)
        )

    return module.register_forward_pre_hook(bound)
