"""Files in every publisher's names, shapes, factors and container, read back to the images they were written from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.checkpoints.conversion import ConversionError, Converted, convert
from export.checkpoints.reader import PublishedGenerator, read_checkpoint
from networks.mapping import MappingNetwork
from networks.stylegan import StyleGAN
from networks.stylegan2 import StyleGAN2
from tests.export.published import saved
from tests.export.publishers import (
    FUSED,
    RATE,
    ROOT512,
    SQRT2,
    WRITERS,
    Network,
    State,
    nvlabs_file,
    rosinality_state,
    stylegan2,
    stylegan_file,
)


def assert_same(found: Converted, mapping: MappingNetwork, network: Network) -> None:
    """The same w, and the same image of it, whole and in halves."""
    rng = torch.Generator().manual_seed(3)
    z = torch.randn(2, 512, generator=rng)
    with torch.inference_mode():
        w = mapping(z, 0.7)
        assert torch.allclose(found.mapping(z, 0.7), w, atol=1e-5 * float(w.abs().max()))
        w_plus = w[:, None] * torch.linspace(0.5, 1.5, network.num_styles)[:, None]
        image = network(w_plus)
        assert image.std() > 1e-3
        assert torch.allclose(found.synthesis(w_plus), image, atol=1e-4 * float(image.abs().max()))
        for cut in (8, 16):
            n = network.coarse_styles(cut)
            assert found.synthesis.coarse_styles(cut) == n
            f = network.coarse(w_plus[:, :n], cut=cut)
            assert torch.allclose(found.synthesis.coarse(w_plus[:, :n], cut=cut), f, atol=1e-4 * float(f.abs().max()))


@pytest.mark.parametrize("publisher", WRITERS)
@pytest.mark.usefixtures("nvlabs_modules")
def test_stylegan2_is_read_back_to_the_same_images(publisher: str, tmp_path: Path) -> None:
    mapping, network = stylegan2()
    WRITERS[publisher](mapping, network, tmp_path / "file")
    checkpoint = read_checkpoint(tmp_path / "file")
    assert checkpoint.kind == publisher
    found = convert(checkpoint)
    assert isinstance(found.synthesis, StyleGAN2)
    assert found.synthesis.shape == network.shape
    assert found.has_w_avg
    assert_same(found, mapping, network)


@pytest.mark.parametrize("clamp", [None, 0.4])
@pytest.mark.usefixtures("nvlabs_modules")
def test_residual_networks_and_bounds_are_read(clamp: float | None, tmp_path: Path) -> None:
    mapping, network = stylegan2("resnet", clamp)
    nvlabs_file(mapping, network, tmp_path / "file")
    found = convert(read_checkpoint(tmp_path / "file"))
    assert isinstance(found.synthesis, StyleGAN2)
    assert found.synthesis.shape == network.shape
    assert_same(found, mapping, network)


def test_an_unknown_mean_of_w_is_said_to_be_unknown(tmp_path: Path) -> None:
    mapping, network = stylegan2()
    (tmp_path / "file").write_bytes(saved({"g_ema": rosinality_state(mapping, network)}))
    found = convert(read_checkpoint(tmp_path / "file"))
    assert not found.has_w_avg


def test_early_files_without_noise_are_read(tmp_path: Path) -> None:
    mapping, network = stylegan2()
    state = {k: v for k, v in rosinality_state(mapping, network).items() if not k.startswith("noises.")}
    for name, buffer in network.named_buffers():
        if name.endswith("noise"):
            buffer.zero_()
    (tmp_path / "file").write_bytes(saved({"g_ema": state, "latent_avg": mapping.w_avg}))
    assert_same(convert(read_checkpoint(tmp_path / "file")), mapping, network)


def literal_stylegan(state: State, w: torch.Tensor) -> torch.Tensor:
    """The published synthesis, run on a file's own tensors: w [B, 512] -> [B, 3, S, S], float64."""
    s = {name: value.double() for name, value in state.items()}
    w = w.double()
    x = torch.empty(0)
    for number in range(2 * len(FUSED)):
        at = f"synthesis.layer{number}"
        if number == 0:
            x = s[f"{at}.const"].expand(len(w), -1, -1, -1)
        else:
            weight = s[f"{at}.weight"] * (SQRT2 / (9 * s[f"{at}.weight"].shape[1]) ** 0.5)
            up, side = number % 2 == 0, x.shape[-1] * (2 - number % 2)
            if up and side >= 128:
                padded = torch.nn.functional.pad(weight, (1, 1, 1, 1))
                four = padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]
                x = torch.nn.functional.conv_transpose2d(x, four.transpose(0, 1), stride=2, padding=1)
            else:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if up else x
                x = torch.nn.functional.conv2d(x, weight, padding=1)
            if up:
                blurred = torch.zeros_like(x)
                padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
                for dy, a in enumerate((1, 2, 1)):
                    for dx, b in enumerate((1, 2, 1)):
                        blurred += a * b / 16 * padded[..., dy : dy + x.shape[-2], dx : dx + x.shape[-1]]
                x = blurred
        x = x + s[f"{at}.apply_noise.weight"][:, None, None] * s[f"{at}.apply_noise.noise"]
        x = torch.nn.functional.leaky_relu(x + s[f"{at}.bias"][:, None, None], 0.2)
        x = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-8).sqrt()
        style = w @ s[f"{at}.style.weight"].T / ROOT512 + s[f"{at}.style.bias"]
        scale, shift = style[:, : x.shape[1]], style[:, x.shape[1] :]
        x = x * (scale + 1)[:, :, None, None] + shift[:, :, None, None]
    last = f"synthesis.output{len(FUSED) - 1}"
    weight = s[f"{last}.weight"] / s[f"{last}.weight"].shape[1] ** 0.5
    return torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x) + s[f"{last}.bias"][:, None, None]


def literal_stylegan_mapping(state: State, z: torch.Tensor) -> torch.Tensor:
    """The published mapping: weights of gain sqrt 2, leaky ReLU without one."""
    x = z.double() / (z.double().square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(3):
        weight = state[f"mapping.dense{i}.weight"].double() * (SQRT2 / ROOT512 * RATE)
        x = torch.nn.functional.leaky_relu(x @ weight.T + state[f"mapping.dense{i}.bias"].double() * RATE, 0.2)
    return x


def test_stylegan_is_read_back_to_the_same_images(tmp_path: Path) -> None:
    state, expected = stylegan_file()
    (tmp_path / "file").write_bytes(saved({"generator": {}, "generator_smooth": state}))
    checkpoint = read_checkpoint(tmp_path / "file")
    assert checkpoint.kind == "genforce"
    found = convert(checkpoint)
    assert isinstance(found.synthesis, StyleGAN)
    assert (found.synthesis.size, found.synthesis.num_styles) == (128, 12)
    ours = found.synthesis.state_dict()
    for name, value in expected.items():
        assert torch.allclose(ours[name], value), name
    z = torch.randn(2, 512, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        w = found.mapping(z)
        reference = literal_stylegan_mapping(state, z)
        assert (w - reference).abs().max() <= 1e-5 * reference.abs().max()
        image = literal_stylegan(state, w)
        made = found.synthesis(w[:, None].expand(-1, 12, -1))
        assert (made - image).abs().max() <= 1e-4 * image.abs().max()


# Bad input.


def edited(state: State, change: Callable[[State], object]) -> PublishedGenerator:
    change(state)
    return PublishedGenerator(kind="rosinality", tensors=state, attributes={})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.update({"to_rgbs.0.upsample.kernel": torch.ones(4)}),
            "invalid filter to_rgbs.0.upsample.kernel: expected the published",
        ),
        (
            lambda s: s.update({"conv1.noise.weight": torch.zeros(2)}),
            r"invalid conv1.noise.weight \[2\]: expected \[1\]",
        ),
        (
            lambda s: s.update({"input.input": torch.zeros(1, 2000, 4, 4)}),
            "a layer has 2000 channels: expected at most 1024",
        ),
        (lambda s: s.pop("noises.noise_6"), "lacks the tensor noises.noise_6"),
        (lambda s: s.pop("convs.3.activate.bias"), "lacks the tensor convs.3.activate.bias"),
        (lambda s: s.update({"extra.weight": torch.zeros(2)}), "tensors of an unknown network: extra.weight"),
        (
            lambda s: s["conv1.conv.weight"].fill_(torch.nan),
            "invalid conv1.conv.weight: it has numbers that are not finite",
        ),
        (lambda s: s.update({"style.2.weight": torch.zeros(512, 64)}), r"invalid style.2.weight \[512, 64\]: expected"),
        (
            lambda s: s.update({"to_rgbs.0.upsample.kernel": torch.ones(4, 4)}),
            "invalid filter to_rgbs.0.upsample.kernel: expected the published",
        ),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("style.")], "no mapping network"),
        (lambda s: s.update({"convs.2.conv.weight": torch.zeros(1, 16, 7, 3, 3)}), "invalid|fit"),
        (lambda s: [s.pop(k) for k in list(s) if "convs.5" in k], "lacks the tensor convs.5.conv.weight"),
    ],
)
def test_what_does_not_fit_is_reported_in_one_sentence(change: Callable[[State], object], said: str) -> None:
    checkpoint = edited(rosinality_state(*stylegan2()), change)
    with pytest.raises(ConversionError, match=said) as caught:
        convert(checkpoint)
    assert "\n" not in str(caught.value)


def test_networks_of_less_than_32_pixels_are_refused() -> None:
    state = rosinality_state(*stylegan2())
    for name in [
        n for n in state if n.startswith(("convs.4.", "convs.5.", "to_rgbs.2.", "noises.noise_5", "noises.noise_6"))
    ]:
        del state[name]
    with pytest.raises(ConversionError, match="smaller than 32 px"):
        convert(PublishedGenerator(kind="rosinality", tensors=state, attributes={}))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (
            {"synthesis.b8.architecture": "orig"},
            "unknown architecture of the synthesis network: expected skip or resnet",
        ),
        ({"synthesis.b8.architecture": ["skip"]}, "is inconsistent"),
        ({"synthesis.b8.conv0.conv_clamp": 3.0, "synthesis.b8.conv1.conv_clamp": 4.0}, "different conv_clamp"),
        ({"synthesis.b8.conv0.conv_clamp": "wide"}, "invalid conv_clamp: expected a number above 0"),
        ({"synthesis.b8.conv0.conv_clamp": [1]}, "is inconsistent"),
    ],
)
@pytest.mark.usefixtures("nvlabs_modules")
def test_odd_attributes_are_reported(attributes: dict[str, object], said: str, tmp_path: Path) -> None:
    nvlabs_file(*stylegan2(), tmp_path / "file")
    checkpoint = read_checkpoint(tmp_path / "file")
    plain = {k: v for k, v in checkpoint.attributes.items() if not k.endswith("conv_clamp")}
    with pytest.raises(ConversionError, match=said):
        convert(replace(checkpoint, attributes={**plain, **attributes}))


@pytest.mark.usefixtures("nvlabs_modules")
def test_conditional_networks_are_refused(tmp_path: Path) -> None:
    mapping, network = stylegan2()
    nvlabs_file(mapping, network, tmp_path / "file")
    checkpoint = read_checkpoint(tmp_path / "file")
    checkpoint.tensors["mapping.embed.weight"] = torch.zeros(512, 10)
    with pytest.raises(ConversionError, match="conditional"):
        convert(checkpoint)


def test_networks_in_progressive_training_are_refused() -> None:
    state, _ = stylegan_file()
    state["synthesis.lod"] = torch.tensor(1.0)
    with pytest.raises(ConversionError, match="progressive"):
        convert(PublishedGenerator(kind="genforce", tensors=state, attributes={}))
