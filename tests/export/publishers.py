"""Networks of ours written out as each publisher stores them: names, shapes, factors and container.

No published weights are at hand, so that a random network is turned into a file: constant factors are divided out and
kernels turned the way its framework keeps them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from networks.generator_file import save_generator
from networks.mapping import MappingNetwork
from networks.resampling import binomial
from networks.stylegan import StyleGAN
from networks.stylegan2 import Architecture, Shape, StyleGAN2
from tests.export.published import Published, saved

State = dict[str, torch.Tensor]
Network = StyleGAN | StyleGAN2
SQRT2 = 2**0.5
RATE = 0.01
ROOT512 = 512**0.5
CHANNELS = (24, 20, 16, 12)  # 4 to 32 pixels
FUSED = (16, 16, 16, 16, 12, 8)  # to 128 pixels, where StyleGAN scatters


def filled(network: torch.nn.Module, seed: int) -> None:
    """Every weight and buffer random: what is zero or one hides mistakes."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if name.rpartition(".")[2] != "kernel":
            fan_in = value[0].numel() if value.ndim > 1 else 4
            value.data.copy_(torch.randn(value.shape, generator=rng) / fan_in**0.5)


def made(network: Network) -> tuple[MappingNetwork, Network]:
    mapping = MappingNetwork(depth=3)
    filled(mapping, 1)
    filled(network, 2)
    return mapping.eval(), network.eval()


def stylegan2(architecture: Architecture = "skip", clamp: float | None = None) -> tuple[MappingNetwork, StyleGAN2]:
    mapping, network = made(StyleGAN2(Shape(channels=CHANNELS, architecture=architecture, clamp=clamp)))
    assert isinstance(network, StyleGAN2)
    return mapping, network


def of(module: Any) -> Any:
    """Submodules are only known to be modules to the checker of types."""
    return module


FILTER = binomial(1, 3, 3, 1)


# NVlabs: stylegan2-ada-pytorch. Runtime factors: lr / sqrt(fan-in) for dense layers, 1 / sqrt(fan-in) for skips, and on
# the styles of a to-RGB layer; modulated weights are used as they are.


def nvlabs_layer(conv: Any, *, clamp: float | None) -> Published:
    affine = {"weight": conv.modulation.weight * ROOT512, "bias": conv.modulation.bias.clone()}
    strength = torch.tensor(0.37)
    members = {
        "weight": conv.weight.detach().clone(),
        "bias": conv.bias.detach().clone(),
        "noise_const": conv.noise / strength,
        "noise_strength": torch.nn.Parameter(strength),
        "resample_filter": FILTER,
        "affine": published("FullyConnectedLayer", affine, activation="linear"),
    }
    return published("SynthesisLayer", members, conv_clamp=clamp, use_noise=True, activation="lrelu")


def nvlabs_rgb(rgb: Any, *, clamp: float | None) -> Published:
    root = rgb.conv.weight.shape[1] ** 0.5
    affine = {"weight": rgb.modulation.weight * ROOT512 * root, "bias": rgb.modulation.bias * root}
    members = {
        "weight": rgb.conv.weight.detach().clone(),
        "bias": rgb.conv.bias.detach().clone(),
        "affine": published("FullyConnectedLayer", affine, activation="linear"),
    }
    return published("ToRGBLayer", members, conv_clamp=clamp)


def published(class_name: str, members: dict[str, Any], **attributes: object) -> Published:
    """Trained tensors are parameters there, the filter and the noise buffers."""
    buffers = {"resample_filter", "noise_const", "w_avg"}
    kept = {
        k: torch.nn.Parameter(v.detach().clone()) if isinstance(v, torch.Tensor) and k not in buffers else v
        for k, v in members.items()
    }
    return Published(class_name, kept, **attributes)


def nvlabs(mapping: MappingNetwork, network: StyleGAN2) -> Published:
    clamp = network.shape.clamp
    dense: dict[str, Any] = {"w_avg": mapping.w_avg.clone()}
    for i, layer in enumerate(of(mapping.layers)):
        members = {"weight": layer.weight * ROOT512 / RATE, "bias": layer.bias / RATE}
        dense[f"fc{i}"] = published("FullyConnectedLayer", members, activation="lrelu", bias_gain=RATE)
    b4 = {
        "const": network.constant[0].detach().clone(),
        "conv1": nvlabs_layer(network.input, clamp=clamp),
        "resample_filter": FILTER,
    }
    if network.to_rgb is not None:
        b4["torgb"] = nvlabs_rgb(network.to_rgb, clamp=clamp)
    architecture = network.shape.architecture
    blocks = {"b4": published("SynthesisBlock", b4, architecture=architecture)}
    for i, block in enumerate(of(network.blocks)):
        members = {
            "conv0": nvlabs_layer(block.conv1, clamp=clamp),
            "conv1": nvlabs_layer(block.conv2, clamp=clamp),
            "resample_filter": FILTER,
        }
        if block.skip is not None:
            weight = block.skip.weight * block.skip.weight.shape[1] ** 0.5
            members["skip"] = published("Conv2dLayer", {"weight": weight, "resample_filter": FILTER}, conv_clamp=None)
        if block.to_rgb is not None:
            members["torgb"] = nvlabs_rgb(block.to_rgb, clamp=clamp)
        blocks[f"b{8 << i}"] = published("SynthesisBlock", members, architecture=architecture)
    parts = {
        "synthesis": published("SynthesisNetwork", blocks, img_resolution=network.size),
        "mapping": published("MappingNetwork", dense, num_layers=3),
    }
    return published("Generator", parts, z_dim=512, w_dim=512, c_dim=0)


def nvlabs_file(mapping: MappingNetwork, network: StyleGAN2, path: Path) -> None:
    import pickle

    with path.open("wb") as file:
        pickle.dump({"G": None, "D": None, "G_ema": nvlabs(mapping, network), "augment_pipe": None}, file)


# rosinality: every weight is scaled by 1 / sqrt(fan-in) as it runs, modulated ones before their demodulation.


def rosinality_state(mapping: MappingNetwork, network: StyleGAN2) -> State:
    state: State = {"input.input": network.constant}
    for i, layer in enumerate(of(mapping.layers)):
        state[f"style.{i + 1}.weight"] = layer.weight * ROOT512 / RATE
        state[f"style.{i + 1}.bias"] = layer.bias / RATE
    blocks = list(of(network.blocks))
    convs = {"conv1": network.input}
    convs |= {f"convs.{2 * i}": b.conv1 for i, b in enumerate(blocks)}
    convs |= {f"convs.{2 * i + 1}": b.conv2 for i, b in enumerate(blocks)}
    order = ["conv1", *(f"convs.{i}" for i in range(2 * len(blocks)))]
    for number, name in enumerate(order):
        conv: Any = convs[name]
        state[f"{name}.conv.weight"] = conv.weight[None] * conv.weight[0].numel() ** 0.5
        state[f"{name}.conv.modulation.weight"] = conv.modulation.weight * ROOT512
        state[f"{name}.conv.modulation.bias"] = conv.modulation.bias
        state[f"{name}.activate.bias"] = conv.bias
        state[f"{name}.noise.weight"] = torch.tensor([0.2])
        state[f"noises.noise_{number}"] = conv.noise[None, None] / 0.2
        if conv.up:
            state[f"{name}.conv.blur.kernel"] = 4 * FILTER
    for name, rgb in [("to_rgb1", network.to_rgb), *((f"to_rgbs.{i}", b.to_rgb) for i, b in enumerate(blocks))]:
        layer = of(rgb)
        root = layer.conv.weight.shape[1] ** 0.5
        state[f"{name}.conv.weight"] = layer.conv.weight[None]
        state[f"{name}.conv.modulation.weight"] = layer.modulation.weight * ROOT512 * root
        state[f"{name}.conv.modulation.bias"] = layer.modulation.bias * root
        state[f"{name}.bias"] = layer.conv.bias[None, :, None, None]
        if name != "to_rgb1":
            state[f"{name}.upsample.kernel"] = 4 * FILTER
    return {name: value.detach().clone() for name, value in state.items()}


def rosinality_file(mapping: MappingNetwork, network: StyleGAN2, path: Path) -> None:
    path.write_bytes(saved({"g_ema": rosinality_state(mapping, network), "latent_avg": mapping.w_avg}))


# genforce: as TensorFlow keeps them, up-sampling kernels mirrored, a style of one added as it runs.


def genforce_mapping(mapping: MappingNetwork, *, bias: float) -> State:
    state: State = {"truncation.w_avg": mapping.w_avg}
    for i, layer in enumerate(of(mapping.layers)):
        state[f"mapping.dense{i}.weight"] = layer.weight * ROOT512 / RATE
        state[f"mapping.dense{i}.bias"] = layer.bias / RATE * bias
    return state


def genforce_stylegan2_state(mapping: MappingNetwork, network: StyleGAN2) -> State:
    state = genforce_mapping(mapping, bias=1)
    state |= {"synthesis.early_layer.const": network.constant, "synthesis.upsample.kernel": 4 * FILTER[None, None]}
    blocks = list(of(network.blocks))
    for number, conv in enumerate([of(network.input), *(c for b in blocks for c in (b.conv1, b.conv2))]):
        at = f"synthesis.layer{number}"
        weight = conv.weight * conv.weight[0].numel() ** 0.5
        state[f"{at}.weight"] = weight.flip(2, 3) if conv.up else weight
        state[f"{at}.bias"] = conv.bias
        state[f"{at}.noise"] = conv.noise[None, None] / -0.3
        state[f"{at}.noise_strength"] = torch.tensor(-0.3)
        state[f"{at}.style.weight"] = conv.modulation.weight * ROOT512
        state[f"{at}.style.bias"] = conv.modulation.bias - 1
        if conv.up:
            state[f"{at}.filter.kernel"] = 4 * FILTER[None, None]
    for number, rgb in enumerate([of(network.to_rgb), *(b.to_rgb for b in blocks)]):
        at, root = f"synthesis.output{number}", rgb.conv.weight.shape[1] ** 0.5
        state[f"{at}.weight"] = rgb.conv.weight
        state[f"{at}.bias"] = rgb.conv.bias
        state[f"{at}.style.weight"] = rgb.modulation.weight * ROOT512 * root
        state[f"{at}.style.bias"] = rgb.modulation.bias * root - 1
    return {name: value.detach().clone() for name, value in state.items()}


def genforce_file(mapping: MappingNetwork, network: StyleGAN2, path: Path) -> None:
    path.write_bytes(saved({"generator_smooth": genforce_stylegan2_state(mapping, network)}))


def own_file(mapping: MappingNetwork, network: StyleGAN2, path: Path) -> None:
    save_generator(mapping, network, path, domain="other")


WRITERS = {"nvlabs": nvlabs_file, "rosinality": rosinality_file, "genforce": genforce_file, "own": own_file}


# StyleGAN: the published 3x3 kernels cannot be had back from the 4x4 ones, so that the file comes first here.


def stylegan_file() -> tuple[State, State]:
    """A file's state, and what it must become in our network except for up-sampling kernels."""
    rng = torch.Generator().manual_seed(4)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng)

    state: State = {"synthesis.lod": torch.zeros(()), "truncation.w_avg": numbers(512) / 10}
    for i in range(3):
        state |= {f"mapping.dense{i}.weight": numbers(512, 512) / RATE, f"mapping.dense{i}.bias": numbers(512)}
    expected: State = {}
    number, before = 0, FUSED[0]
    for index, width in enumerate(FUSED):
        side = 4 << index
        for second in (False, True):
            at = f"synthesis.layer{number}"
            ours = ("conv" if second else "input") if index == 0 else f"blocks.{index - 1}.conv{1 + second}"
            epilogue = ours if ours == "input" else f"{ours}.epilogue"
            if number == 0:
                state[f"{at}.const"] = numbers(1, width, 4, 4)
            else:
                state[f"{at}.weight"] = numbers(width, width if second else before, 3, 3)
            if second:
                expected[f"{ours}.conv.weight"] = state[f"{at}.weight"] * SQRT2 / (9 * width) ** 0.5
            elif index:
                state[f"{at}.blur.kernel"] = binomial(1, 2, 1).expand(width, 1, 3, 3).clone()
            state[f"{at}.bias"] = numbers(width)
            state[f"{at}.apply_noise.weight"] = numbers(width)
            state[f"{at}.apply_noise.noise"] = numbers(1, 1, side, side)
            state[f"{at}.style.weight"] = numbers(2 * width, 512)
            state[f"{at}.style.bias"] = numbers(2 * width)
            expected[f"{epilogue}.style.weight"] = state[f"{at}.style.weight"] / ROOT512
            number += 1
        state[f"synthesis.output{index}.weight"] = numbers(3, width, 1, 1)
        state[f"synthesis.output{index}.bias"] = numbers(3)
        before = width
    return state, expected
