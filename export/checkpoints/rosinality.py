"""Rosinality's names: ``g_ema`` of stylegan2-pytorch."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from export.checkpoints.conversion import SIDES, ConversionError, Converted, Source, StyleGAN2State, dense, mapping_of
from networks.mapping import STYLE_DIM
from networks.stylegan2 import FILTER


def generator(source: Source) -> Converted:
    """Mapping and synthesis.

    Raises:
        ConversionError: see :mod:`export.checkpoints.conversion`.
    """
    mapping = mapping_of(source, lambda i: f"style.{i}", first=1)
    known = "latent_avg" in source
    if known:
        mean = source.take("latent_avg").flatten()
        if len(mean) != STYLE_DIM:
            raise ConversionError(f"invalid latent_avg: {len(mean)} numbers, expected {STYLE_DIM}")
        mapping.w_avg.copy_(mean)
    source.require_filters(r".*\.kernel", FILTER)
    noisy = bool(source.names(r"noises\..*"))
    conv = partial(_conv, source, made := StyleGAN2State(architecture="skip"), noisy=noisy)
    made.constant(source.take("input.input", 1, -1, 4, 4)[0])
    conv("conv1", "input", side=4, noise=0)
    _to_rgb(source, made, "to_rgb1", "to_rgb")
    for i, side in enumerate(SIDES[1:]):
        if f"convs.{2 * i}.conv.weight" not in source:
            break
        conv(f"convs.{2 * i}", f"blocks.{i}.conv1", side=side, noise=1 + 2 * i)
        made.channels.append(conv(f"convs.{2 * i + 1}", f"blocks.{i}.conv2", side=side, noise=2 + 2 * i))
        _to_rgb(source, made, f"to_rgbs.{i}", f"blocks.{i}.to_rgb")
    return Converted(mapping=mapping, synthesis=made.network(), has_w_avg=known)


def _conv(source: Source, made: StyleGAN2State, theirs: str, ours: str, *, side: int, noise: int, noisy: bool) -> int:
    weight = source.take(f"{theirs}.conv.weight", 1, -1, -1, 3, 3)[0]
    strength = source.take(f"{theirs}.noise.weight", 1)
    made.conv(
        ours,
        # Variance one over the fan-in, so that the small number added in the demodulation weighs the same.
        weight=weight / weight[0].numel() ** 0.5,
        bias=source.take(f"{theirs}.activate.bias", len(weight)),
        # Early files keep no noise.
        noise=strength
        * (source.take(f"noises.noise_{noise}", 1, 1, side, side)[0, 0] if noisy else torch.zeros(side, side)),
        affine=dense(source, f"{theirs}.conv.modulation", weight.shape[1]),
    )
    return len(weight)


def _to_rgb(source: Source, made: StyleGAN2State, theirs: str, ours: str) -> None:
    weight: Tensor = source.take(f"{theirs}.conv.weight", 1, 3, -1, 1, 1)[0]
    bias = source.take(f"{theirs}.bias", 1, 3, 1, 1).flatten()
    affine = dense(source, f"{theirs}.conv.modulation", weight.shape[1])
    made.to_rgb(ours, weight=weight, bias=bias, affine=affine)
