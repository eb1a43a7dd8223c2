"""Turns a published generator's tensors into the project's own networks: constant factors multiplied in, names changed.

Published networks keep weights of variance one and scale them as they run (equalised learning rate, StyleGAN, appendix
C); here the scaled weights are kept. Each publisher's names are a module of their own, which this one chooses.

Raises, all from :func:`convert`::

    CheckpointError
    └── ConversionError     tensors are missing, left over, of other shapes or not finite, or of a variant not served
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
    """The tensors are not those of a network that is served."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A generator whose ``w_avg`` may not be known."""

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
            "the checkpoint contradicts itself: its tensors and attributes make no network"
        ) from error
    source.finish()
    return made


class Source:
    """The tensors of a checkpoint, each to be taken once."""

    def __init__(self, checkpoint: PublishedGenerator) -> None:
        self.attributes = checkpoint.attributes
        self._left = dict(checkpoint.tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self, pattern: str) -> list[str]:
        """Names not yet taken that a regular expression matches whole."""
        return [name for name in self._left if re.fullmatch(pattern, name)]

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in float32; -1 in ``shape`` fits any size, no shape at all fits any.

        Raises:
            ConversionError: there is none, or its shape or a value is wrong.
        """
        if name not in self._left:
            raise ConversionError(f"the checkpoint has no tensor {name}")
        tensor = self._left.pop(name)
        fits = tensor.ndim == len(shape) and all(w in (-1, n) for n, w in zip(tensor.shape, shape, strict=True))
        if shape and not fits:
            wanted = ["any" if n < 0 else n for n in shape]
            raise ConversionError(f"{name} is {list(tensor.shape)}, and must be {wanted}".replace("'", ""))
        tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise ConversionError(f"{name} holds numbers that are not finite")
        return tensor

    def number(self, name: str) -> Tensor:
        """The one number of a tensor, float32 [].

        Raises:
            ConversionError: there is none, or more.
        """
        tensor = self.take(name)
        if tensor.numel() != 1:
            raise ConversionError(f"{name} is {list(tensor.shape)}, and must be one number")
        return tensor.reshape(())

    def require_filters(self, pattern: str, taps: Iterable[float]) -> None:
        """Take the resampling filters that a regular expression matches whole: each ``taps`` in both directions.

        Raises:
            ConversionError: one is another.
        """
        expected = binomial(*taps)
        for name in self.names(pattern):
            kernel = self.take(name)
            kernel = kernel if kernel.ndim > 1 else kernel.reshape(1, -1)
            # A depthwise filter is the same for every channel; its gain is known from where it stands.
            kernel = kernel.flatten(0, -3) if kernel.ndim > 2 else kernel[None]
            total = kernel.sum(dim=(1, 2), keepdim=True)
            if kernel.shape[1:] != expected.shape or not torch.allclose(
                kernel / total, expected.expand_as(kernel), atol=1e-5
            ):
                raise ConversionError(
                    f"{name} is another filter than the published {', '.join(f'{t:g}' for t in taps)}"
                )

    def drop(self, pattern: str) -> None:
        """Forget what a regular expression matches whole."""
        for name in self.names(pattern):
            del self._left[name]

    def finish(self) -> None:
        """Raise where tensors are left: the network is not what it was taken for."""
        if self._left:
            some = ", ".join(sorted(self._left)[:SHOWN])
            more = f" and {len(self._left) - SHOWN} more" if len(self._left) > SHOWN else ""
            raise ConversionError(f"the checkpoint has tensors that belong to no network known here: {some}{more}")


def mapping_of(source: Source, name: Callable[[int], str], *, first: int = 0, bias: float = 1.0) -> MappingNetwork:
    """The mapping network, of dense layers with leaky ReLU and a gain of sqrt 2.

    Args:
        source: where its tensors are.
        name: of a layer by its number.
        first: number of the first layer.
        bias: factor of the biases where a family has another gain.

    Raises:
        ConversionError: there are none, or they are not of 512 features.
    """
    count = 0
    while f"{name(first + count)}.weight" in source:
        count += 1
    if not count:
        raise ConversionError(f"the checkpoint has no mapping network: no tensor {name(first)}.weight")
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
    """Refuse what would take all memory before it is seen that it does not fit.

    Raises:
        ConversionError: a layer is wider than any published one.
    """
    if max(channels) > MAX_CHANNELS:
        raise ConversionError(f"a layer has {max(channels)} channels, more than {MAX_CHANNELS}")


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
            # Its first line is a headline; the second one names the first fault.
            fault = " ".join(str(error).splitlines()[1:2]).strip()
            raise ConversionError(f"the layers do not fit together: {fault}") from error
        return network
