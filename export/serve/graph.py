"""One graph to export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Graph:
    """How to build and export a graph.

    Attributes:
        name: of the served model.
        build: makes its module.
        inputs: example inputs by name.
        outputs: names of the outputs.
        weights: files that the graph depends on.
        batched: whether the first axis of every tensor is the batch.
        dynamic: further dynamic axes: by tensor, the name of each.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    weights: tuple[Path, ...]
    batched: bool = True
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
