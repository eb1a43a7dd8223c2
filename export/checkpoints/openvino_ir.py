"""Reads the MobileStyleGAN weights out of OpenVINO IR files with numpy and the standard library.

The IR is an XML graph beside one flat binary. Its constants stand in execution order, which is what
the conversion relies on; every shape is checked when the state dict is loaded.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class ReadError(ValueError):
    """The IR is not the network that this reader knows."""


@dataclass(frozen=True, kw_only=True)
class IrConstant:
    """One float32 constant of the graph: its name and its value."""

    name: str
    value: Array


def constants(xml: Path) -> list[IrConstant]:
    """The float32 constants of an IR, in the order of the graph; the ``.bin`` lies beside the ``.xml``."""
    blob = xml.with_suffix(".bin").read_bytes()
    layers = ET.parse(xml).getroot().find("layers")
    if layers is None:
        raise ReadError(f"{xml.name} has no layers")
    found = []
    for layer in layers.findall("layer"):
        data = layer.find("data")
        if layer.get("type") != "Const" or data is None or data.get("element_type") != "f32":
            continue
        shape = [int(d) for d in (data.get("shape") or "").split(",") if d.strip()]
        value = np.frombuffer(blob, np.float32, int(data.get("size", 0)) // 4, int(data.get("offset", 0)))
        found.append(IrConstant(name=layer.get("name", ""), value=value.reshape(shape)))
    return found


def mapping_state(xml: Path) -> dict[str, Array]:
    """The state dict of ``networks.mapping.MappingNetwork``, without ``w_avg``."""
    large = [c.value for c in constants(xml) if c.value.size >= 512]
    weights, biases = large[::2], large[1::2]
    if len(weights) != 8 or any(w.shape != (512, 512) for w in weights):
        raise ReadError(f"{xml.name} is not an eight-layer mapping network")
    state: dict[str, Array] = {}
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        state[f"layers.{i}.weight"], state[f"layers.{i}.bias"] = weight, bias.reshape(-1)
    return state


def synthesis_state(xml: Path) -> dict[str, Array]:
    """The state dict of ``networks.mobilestylegan.MobileStyleGAN``."""
    graph = constants(xml)
    state: dict[str, Array] = {}
    _read_modulations(graph, state)
    _read_convolutions(graph, state)
    for name in ["input", *(f"layers.{i}" for i in range(6))]:
        _interleave(state, name)
    _fold_image_head(state)
    return state


def _read_modulations(graph: list[IrConstant], state: dict[str, Array]) -> None:
    """Style projections; the IR's constant factor behind each is folded into it."""
    for i, constant in enumerate(graph):
        if not constant.name.endswith("modulation.weight"):
            continue
        name = constant.name.removeprefix("m.").removesuffix(".modulation.weight")
        weight, bias = constant.value, graph[i + 1].value.reshape(-1)
        if name.endswith(".up"):
            target, scale = name.removesuffix("up") + "up_modulation", np.float32(1)
        else:
            target, scale = name.removesuffix(".conv") + ".modulation", graph[i + 2].value.reshape(-1)[0]
        target = target.replace("layers.6.to_img", "to_image")
        target = "input.modulation" if target == "conv1.modulation" else target
        state[f"{target}.weight"], state[f"{target}.bias"] = weight * scale, bias * scale


def _read_convolutions(graph: list[IrConstant], state: dict[str, Array]) -> None:
    """Depthwise, pointwise, noise, bias follow each other, two of each per layer."""
    by_name = {c.name: c.value for c in graph}
    dense = next(c.value for c in graph if c.value.shape == (512, 512, 3, 3))
    state["input.constant"] = by_name["m.input.input"]
    state["input.conv.weight"], state["input.conv.bias"] = dense, by_name["m.conv1.bias"].reshape(-1)
    state["input.noise"] = next(c.value for c in graph if c.value.shape == (1, 1, 4, 4))
    depthwise = [i for i, c in enumerate(graph) if c.value.ndim == 5 and c.value.shape[-2:] == (3, 3)]
    if len(depthwise) != 14:
        raise ReadError(f"expected 14 depthwise convolutions, found {len(depthwise)}")
    for n, i in enumerate(depthwise):
        name = f"layers.{n // 2}.conv{n % 2 + 1}"
        kernel, pointwise, noise, bias = (graph[i + k].value for k in range(4))
        state[f"{name}.depthwise.weight"] = kernel[:, 0]
        state[f"{name}.pointwise.weight"] = pointwise
        state[f"{name}.pointwise.bias"] = bias.reshape(-1)
        state[f"{name}.noise"] = noise
    state["to_image.conv.weight"] = by_name["m.layers.6.to_img.conv.weight"]
    state["to_image.conv.bias"] = by_name["m.layers.6.to_img.bias"].reshape(-1)


def _band_order(channels: int) -> NDArray[np.intp]:
    """The IR stores all low bands, then three high bands per channel; ours has four per channel."""
    c = channels // 4
    low, high = np.arange(c)[:, None], c + np.arange(3 * c).reshape(c, 3)
    return np.concatenate([low, high], axis=1).reshape(-1)


def _interleave(state: dict[str, Array], name: str) -> None:
    """Reorders what feeds the next layer's inverse wavelet transform, so that no runtime shuffle is needed."""
    conv = f"{name}.conv" if name == "input" else f"{name}.conv2.pointwise"
    following = "layers.0" if name == "input" else f"layers.{int(name.split('.')[1]) + 1}"
    order = _band_order(state[f"{conv}.bias"].size)
    for key in (
        f"{conv}.weight",
        f"{conv}.bias",
        f"{following}.up_modulation.weight",
        f"{following}.up_modulation.bias",
    ):
        state[key] = state[key][order]


def _fold_image_head(state: dict[str, Array]) -> None:
    """The last inverse wavelet transform is linear: fold it into the 1x1 convolution, leave a pixel shuffle."""
    order = _band_order(12)
    for key in ("to_image.conv.weight", "to_image.conv.bias"):
        value = state[key][order]
        low, vertical, horizontal, diagonal = np.moveaxis(value.reshape(3, 4, *value.shape[1:]), 1, 0)
        # Plain sums in a fixed order: the same bits, and so the same fingerprint, on every machine.
        corners = [
            (low + r * vertical + s * horizontal + r * s * diagonal) / np.float32(2)
            for r in (np.float32(1), np.float32(-1))
            for s in (np.float32(1), np.float32(-1))
        ]
        state[key] = np.stack(corners, axis=1).reshape(value.shape)
