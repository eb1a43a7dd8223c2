"""NVlabs' names: ``G_ema`` of stylegan2-ada-pytorch, and of the StyleGAN2 configuration of its successor."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from export.checkpoints.conversion import SIDES, ConversionError, Converted, Source, StyleGAN2State, dense, mapping_of
from networks.mapping import STYLE_DIM
from networks.stylegan2 import FILTER, Architecture

ARCHITECTURES = ("skip", "resnet")


def generator(source: Source) -> Converted:
    """Mapping and synthesis.

    Raises:
        ConversionError: see :mod:`export.checkpoints.conversion`.
    """
    if source.names(r"mapping\.embed\..*"):
        raise ConversionError(
            "the network is conditional: its mapping network takes a label, and labels are not served"
        )
    mapping = mapping_of(source, lambda i: f"mapping.fc{i}")
    mapping.w_avg.copy_(source.take("mapping.w_avg", STYLE_DIM))
    source.require_filters(r"synthesis\..*resample_filter", FILTER)
    sides = [side for side in SIDES if source.names(rf"synthesis\.b{side}\..*")]
    made = StyleGAN2State(architecture=_architecture(source, sides), clamp=_clamp(source))
    made.constant(source.take("synthesis.b4.const", -1, 4, 4))
    for i, side in enumerate(sides):
        at, to = f"synthesis.b{side}", "" if i == 0 else f"blocks.{i - 1}."
        for theirs, ours in (("conv1", "input"),) if i == 0 else (("conv0", "conv1"), ("conv1", "conv2")):
            weight = source.take(f"{at}.{theirs}.weight", -1, -1, 3, 3)
            bias = source.take(f"{at}.{theirs}.bias", len(weight))
            affine = dense(source, f"{at}.{theirs}.affine", weight.shape[1])
            made.conv(to + ours, weight=weight, bias=bias, noise=_noise(source, f"{at}.{theirs}", side), affine=affine)
        if i:
            made.channels.append(len(weight))
        if f"{at}.skip.weight" in source:
            skip = source.take(f"{at}.skip.weight", -1, -1, 1, 1)
            made.state[f"{to}skip.weight"] = skip / skip.shape[1] ** 0.5
        if f"{at}.torgb.weight" in source:
            weight = source.take(f"{at}.torgb.weight", 3, -1, 1, 1)
            affine = dense(source, f"{at}.torgb.affine", weight.shape[1])
            made.to_rgb(f"{to}to_rgb", weight=weight, bias=source.take(f"{at}.torgb.bias", 3), affine=affine)
    return Converted(mapping=mapping, synthesis=made.network(), has_w_avg=True)


def _noise(source: Source, at: str, side: int) -> Tensor:
    """The constant noise times its strength, [S, S]; zero where a network was trained without noise."""
    if f"{at}.noise_const" not in source and f"{at}.noise_strength" not in source:
        return torch.zeros(side, side)
    return source.take(f"{at}.noise_const", side, side) * source.number(f"{at}.noise_strength")


def _architecture(source: Source, sides: list[int]) -> Architecture:
    said = {source.attributes.get(f"synthesis.b{side}.architecture", "skip") for side in sides}
    if any(f"synthesis.b{side}.skip.weight" in source for side in sides):
        said = {"resnet"}
    if len(said) != 1 or not said <= set(ARCHITECTURES):
        raise ConversionError("unknown architecture of the synthesis network: expected skip or resnet")
    return cast("Architecture", said.pop())


def _clamp(source: Source) -> float | None:
    """The bound of the layers' outputs, one for all of a network; the skip of a residual block never has one."""
    found = {
        value
        for name, value in source.attributes.items()
        if name.startswith("synthesis.") and name.endswith(".conv_clamp") and ".skip." not in name
    }
    if len(found) > 1:
        raise ConversionError("the layers have different conv_clamp: expected one for all")
    value = found.pop() if found else None
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ConversionError("invalid conv_clamp: expected a number above 0")
    return float(value)
