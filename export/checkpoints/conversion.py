"""Turns the tensors of a published generator into the project's networks.

Published networks keep weights of variance one and scale them at run time (equalised learning rate, StyleGAN, appendix
C). Here the scaled weights are kept. A module per publisher knows its names.

Raises, all from :func:`convert`::

    CheckpointError
    └── ConversionError     tensors are missing, left over, of wrong shape or not finite, or the variant is not served
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from export.checkpoints.errors import CheckpointError
from export.checkpoints.reader import PublishedGenerator
from networks.mapping import STYLE_DIM, MappingNetwork
from networks.resampling import binomial
from networks.stylegan2 import Architecture, Shape, StyleGAN2
from networks.synthesis import Synthesis

MAPPING_RATE = 0.01  # learning rate multiplier of every published mapping network
SIDES = tuple(4 << i for i in range(9))  # up to 1024
SHOWN = 3  # names in a message
MAX_CHANNELS = 1024  # published networks have 512


class ConversionError(CheckpointError):
    """The tensors do not make a network that is served."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A generator; its ``w_avg`` may be unknown."""

    mapping: MappingNetwork
    synthesis: Synthesis
    has_w_avg: bool


def convert(checkpoint: PublishedGenerator) -> Converted:
    """The networks of a checkpoint, float32, on the CPU.

    Raises:
        ConversionError: see the module.
    """
    source = Source(checkpoint)
    module = import_module(f"export.checkpoints.{checkpoint.kind}")
    build: Callable[[Source], Converted] = module.generator
    try:
        made = build(source)
    except CheckpointError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConversionError(
            "the checkpoint is inconsistent: its tensors and attributes do not make a network"
        ) from error
    source.finish()
    return made


class Source:
    """The tensors of a checkpoint; each is taken once."""

    def __init__(self, checkpoint: PublishedGenerator) -> None:
        self.attributes = checkpoint.attributes
        self._left = dict(checkpoint.tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self, pattern: str) -> list[str]:
        """Names of tensors not yet taken that match a regular expression."""
        return [name for name in self._left if re.fullmatch(pattern, name)]

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in float32; -1 in ``shape`` allows any size, and no shape allows any shape.

        Raises:
            ConversionError: it is missing, or its shape or a value is wrong.
        """
        if name not in self._left:
            raise ConversionError(f"the checkpoint lacks the tensor {name}")
        tensor = self._left.pop(name)
        fits = tensor.ndim == len(shape) and all(w in (-1, n) for n, w in zip(tensor.shape, shape, strict=True))
        if shape and not fits:
            wanted = ["any" if n < 0 else n for n in shape]
            raise ConversionError(f"invalid {name} {list(tensor.shape)}: expected {wanted}".replace("'", ""))
        tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise ConversionError(f"invalid {name}: it has numbers that are not finite")
        return tensor

    def number(self, name: str) -> Tensor:
        """The one number of a tensor, float32 [].

        Raises:
            ConversionError: it is missing, or has another size.
        """
        tensor = self.take(name)
        if tensor.numel() != 1:
            raise ConversionError(f"invalid {name} {list(tensor.shape)}: expected one number")
        return tensor.reshape(())

    def require_filters(self, pattern: str, taps: Iterable[float]) -> None:
        """Take the resampling filters that match a regular expression; each must be ``taps`` in both directions.

        Raises:
            ConversionError: a filter differs.
        """
        expected = binomial(*taps)
        for name in self.names(pattern):
            kernel = self.take(name)
            kernel = kernel if kernel.ndim > 1 else kernel.reshape(1, -1)
            # A depthwise filter is the same for every channel, and its gain follows from its place.
            kernel = kernel.flatten(0, -3) if kernel.ndim > 2 else kernel[None]
            total = kernel.sum(dim=(1, 2), keepdim=True)
            if kernel.shape[1:] != expected.shape or not torch.allclose(
                kernel / total, expected.expand_as(kernel), atol=1e-5
            ):
                raise ConversionError(
                    f"invalid filter {name}: expected the published {', '.join(f'{t:g}' for t in taps)}"
                )

    def drop(self, pattern: str) -> None:
        """Drop the tensors that match a regular expression."""
        for name in self.names(pattern):
            del self._left[name]

    def finish(self) -> None:
        """Raise if tensors are left: then it is another network."""
        if self._left:
            some = ", ".join(sorted(self._left)[:SHOWN])
            more = f" and {len(self._left) - SHOWN} more" if len(self._left) > SHOWN else ""
            raise ConversionError(f"the checkpoint has tensors of an unknown network: {some}{more}")


def mapping_of(source: Source, name: Callable[[int], str], *, first: int = 0, bias: float = 1.0) -> MappingNetwork:
    """The mapping network, of dense layers with leaky ReLU and a gain of sqrt 2.

    Args:
        source: the checkpoint.
        name: gives a layer's name by its number.
        first: number of the first layer.
        bias: factor on the biases, for a family with another gain.

    Raises:
        ConversionError: there is no layer, or one does not have 512 features.
    """
    count = 0
    while f"{name(first + count)}.weight" in source:
        count += 1
    if not count:
        raise ConversionError(f"the checkpoint has no mapping network: it lacks the tensor {name(first)}.weight")
    network = MappingNetwork(depth=count)
    state = {"w_avg": torch.zeros(STYLE_DIM)}
    for i in range(count):
        at = name(first + i)
        weight = source.take(f"{at}.weight", STYLE_DIM, STYLE_DIM)
        state[f"layers.{i}.weight"] = weight * (MAPPING_RATE / STYLE_DIM**0.5)
        state[f"layers.{i}.bias"] = source.take(f"{at}.bias", STYLE_DIM) * MAPPING_RATE * bias
    network.load_state_dict(state)
    return network


def dense(source: Source, name: str, outer: int) -> dict[str, Tensor]:
    """A style's affine map: ``weight`` [outer, 512], scaled, and ``bias`` [outer]."""
    weight = source.take(f"{name}.weight", outer, STYLE_DIM)
    return {"weight": weight / STYLE_DIM**0.5, "bias": source.take(f"{name}.bias", outer)}


def check_channels(channels: Sequence[int]) -> None:
    """Refuse layers that could take all memory.

    Raises:
        ConversionError: a layer is wider than any published one.
    """
    if max(channels) > MAX_CHANNELS:
        raise ConversionError(f"a layer has {max(channels)} channels: expected at most {MAX_CHANNELS}")


class StyleGAN2State:
    """The state of a StyleGAN2, gathered layer by layer."""

    def __init__(self, *, architecture: Architecture, clamp: float | None = None) -> None:
        self.architecture, self.clamp = architecture, clamp
        self.state: dict[str, Tensor] = {}
        self.channels: list[int] = []

    def constant(self, value: Tensor) -> None:
        """value: [C, 4, 4]."""
        self.state["constant"] = value[None]
        self.channels.append(len(value))

    def conv(self, name: str, *, weight: Tensor, bias: Tensor, noise: Tensor, affine: dict[str, Tensor]) -> None:
        """weight [out, in, 3, 3], bias [out], noise [S, S] times its strength, affine to [in]."""
        self.state |= {f"{name}.weight": weight, f"{name}.bias": bias, f"{name}.noise": noise}
        self.state |= {f"{name}.modulation.{key}": value for key, value in affine.items()}

    def to_rgb(self, name: str, *, weight: Tensor, bias: Tensor, affine: dict[str, Tensor]) -> None:
        """weight [3, in, 1, 1] as stored, bias [3], affine to [in] with the weights' factor left out."""
        scale = weight.shape[1] ** -0.5
        self.state |= {f"{name}.conv.weight": weight, f"{name}.conv.bias": bias}
        self.state |= {f"{name}.modulation.{key}": scale * value for key, value in affine.items()}

    def network(self) -> StyleGAN2:
        """The network.

        Raises:
            ConversionError: a layer is missing or does not fit its neighbours.
        """
        check_channels(self.channels)
        try:
            shape = Shape(channels=tuple(self.channels), architecture=self.architecture, clamp=self.clamp)
        except ValueError as error:
            raise ConversionError(str(error)) from error
        network = StyleGAN2(shape)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            # The second line names the first fault.
            fault = " ".join(str(error).splitlines()[1:2]).strip()
            raise ConversionError(f"the layers do not fit together: {fault}") from error
        return network
