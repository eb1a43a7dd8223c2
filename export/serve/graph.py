"""One graph to export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from networks.pixels import from_uint8, to_uint8

Feed = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class EightBits:
    """What of a graph may be computed in 8 bits.

    Attributes:
        weights: a pattern that the names of the convolutions' weights contain.
        feeds: makes inputs by name, on which the scales are found.
    """

    weights: str
    feeds: Callable[[], list[Feed]]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """How to build and export a graph.

    Attributes:
        name: of the served model.
        build: makes its module.
        inputs: example inputs by name.
        outputs: names of the outputs.
        weights: files that the graph depends on.
        code: files of code that it depends on, beyond those of every graph.
        batched: whether the first axis of every tensor is the batch.
        dynamic: further dynamic axes: by tensor, the name of each.
        largest: the largest size of an input's dynamic axis, by its name; the exported graph refuses more.
        eight_bits: what a CPU may compute in 8 bits.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    weights: tuple[Path, ...]
    code: tuple[str, ...] = ()
    batched: bool = True
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)
    eight_bits: EightBits | None = None


def received(image: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1]."""
    return from_uint8(image.permute(0, 3, 1, 2))


def sent(image: Tensor) -> Tensor:
    """float32 [B, 3, H, W], nominally in [-1, 1] -> uint8 [B, H, W, 3]."""
    return to_uint8(image).permute(0, 2, 3, 1)
