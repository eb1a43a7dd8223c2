"""What one exported graph is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One graph to export: how to build it, example inputs by name, output names, weight files it depends on."""

    name: str
    build: Callable[[], nn.Module]
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    weights: tuple[Path, ...]
    batched: bool = True
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
