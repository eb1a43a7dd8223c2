"""Genforce's names: ``generator_smooth`` of its StyleGAN and its StyleGAN2."""

from __future__ import annotations

from torch import Tensor

from export.checkpoints.conversion import (
    SIDES,
    ConversionError,
    Converted,
    Source,
    StyleGAN2State,
    check_channels,
    dense,
    mapping_of,
)
from networks import stylegan
from networks.mapping import STYLE_DIM, MappingNetwork
from networks.stylegan import StyleGAN, stretched
from networks.stylegan2 import FILTER

FUSED_FROM = 128  # pixels, from which StyleGAN scatters its up-sampling weights


def generator(source: Source) -> Converted:
    """Mapping and synthesis, of StyleGAN or StyleGAN2.

    Raises:
        ConversionError: see :mod:`export.checkpoints.conversion`.
    """
    if "mapping.label_weight" in source or source.names(r"mapping\.label.*"):
        raise ConversionError(
            "the network is conditional: its mapping network takes a label, and labels are not served"
        )
    return _stylegan2(source) if "synthesis.early_layer.const" in source else _stylegan(source)


def _stylegan2(source: Source) -> Converted:
    mapping = _mapping(source, bias=1.0)
    source.require_filters(r"synthesis\..*kernel", FILTER)
    if "synthesis.output0.weight" not in source:
        raise ConversionError("the synthesis network has no image at 4x4: only the architecture skip is served")
    made = StyleGAN2State(architecture="skip")
    made.constant(source.take("synthesis.early_layer.const", 1, -1, 4, 4)[0])
    _modulated(source, made, 0, "input", side=4)
    _to_rgb(source, made, 0, "to_rgb")
    for i, side in enumerate(SIDES[1:]):
        if f"synthesis.layer{2 * i + 1}.weight" not in source:
            break
        _modulated(source, made, 2 * i + 1, f"blocks.{i}.conv1", side=side, up=True)
        made.channels.append(_modulated(source, made, 2 * i + 2, f"blocks.{i}.conv2", side=side))
        _to_rgb(source, made, i + 1, f"blocks.{i}.to_rgb")
    return Converted(mapping=mapping, synthesis=made.network(), has_w_avg=True)


def _mapping(source: Source, *, bias: float) -> MappingNetwork:
    mapping = mapping_of(source, lambda i: f"mapping.dense{i}", bias=bias)
    mapping.w_avg.copy_(source.take("truncation.w_avg", STYLE_DIM))
    return mapping


def _modulated(source: Source, made: StyleGAN2State, number: int, ours: str, *, side: int, up: bool = False) -> int:
    at = f"synthesis.layer{number}"
    weight = source.take(f"{at}.weight", -1, -1, 3, 3)
    made.conv(
        ours,
        # Kept as TensorFlow convolves; its transposed convolution sees the kernel mirrored.
        weight=(weight.flip(2, 3) if up else weight) / weight[0].numel() ** 0.5,
        bias=source.take(f"{at}.bias", len(weight)),
        noise=source.take(f"{at}.noise", 1, 1, side, side)[0, 0] * source.number(f"{at}.noise_strength"),
        affine=_style(source, at, weight.shape[1]),
    )
    return len(weight)


def _to_rgb(source: Source, made: StyleGAN2State, number: int, ours: str) -> None:
    at = f"synthesis.output{number}"
    weight = source.take(f"{at}.weight", 3, -1, 1, 1)
    made.to_rgb(ours, weight=weight, bias=source.take(f"{at}.bias", 3), affine=_style(source, at, weight.shape[1]))


def _style(source: Source, at: str, outer: int) -> dict[str, Tensor]:
    """The affine map of a layer; a style of one is added as it runs."""
    affine = dense(source, f"{at}.style", outer)
    return {"weight": affine["weight"], "bias": affine["bias"] + 1}


def _stylegan(source: Source) -> Converted:
    # Its leaky ReLU has no gain, and its weights have one of sqrt 2 instead.
    mapping = _mapping(source, bias=0.5**0.5)
    if source.number("synthesis.lod") != 0:
        raise ConversionError("the progressive training of the network is not finished (lod is above 0)")
    source.require_filters(r"synthesis\..*\.blur\.kernel", stylegan.FILTER)
    constant = source.take("synthesis.layer0.const", 1, -1, 4, 4)
    channels, state = [constant.shape[1]], {"constant": constant}
    state |= _epilogue(source, 0, "input", side=4, channels=channels[0])
    state |= _conv(source, 1, "conv", side=4)
    for i, side in enumerate(SIDES[1:]):
        number = 2 * i + 2
        if f"synthesis.layer{number}.weight" not in source:
            break
        state |= _conv(source, number, f"blocks.{i}.conv1", side=side, up=True)
        state |= _conv(source, number + 1, f"blocks.{i}.conv2", side=side)
        channels.append(len(state[f"blocks.{i}.conv2.conv.weight"]))
    last = len(channels) - 1
    weight = source.take(f"synthesis.output{last}.weight", 3, -1, 1, 1)
    state |= {
        "to_rgb.weight": weight / weight.shape[1] ** 0.5,
        "to_rgb.bias": source.take(f"synthesis.output{last}.bias", 3),
    }
    source.drop(r"synthesis\.output\d+\.(weight|bias)")  # of smaller sizes, from its training
    return Converted(mapping=mapping, synthesis=_network(channels, state), has_w_avg=True)


def _network(channels: list[int], state: dict[str, Tensor]) -> StyleGAN:
    check_channels(channels)
    try:
        network = StyleGAN(tuple(channels))
        network.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise ConversionError(
            f"the layers do not fit together: {' '.join(str(error).splitlines()[-1:]).strip()}"
        ) from error
    return network


def _conv(source: Source, number: int, ours: str, *, side: int, up: bool = False) -> dict[str, Tensor]:
    weight = source.take(f"synthesis.layer{number}.weight", -1, -1, 3, 3)
    scaled = weight * (2 / weight[0].numel()) ** 0.5
    kernel = stretched(scaled, fused=side >= FUSED_FROM) if up else scaled
    epilogue = _epilogue(source, number, f"{ours}.epilogue", side=side, channels=len(weight))
    return {f"{ours}.conv.weight": kernel, **epilogue}


def _epilogue(source: Source, number: int, ours: str, *, side: int, channels: int) -> dict[str, Tensor]:
    at = f"synthesis.layer{number}"
    affine = dense(source, f"{at}.style", 2 * channels)
    return {
        f"{ours}.noise_strength": source.take(f"{at}.apply_noise.weight", channels),
        f"{ours}.noise": source.take(f"{at}.apply_noise.noise", 1, 1, side, side)[0, 0],
        f"{ours}.bias": source.take(f"{at}.bias", channels),
        f"{ours}.style.weight": affine["weight"],
        f"{ours}.style.bias": affine["bias"],
    }
