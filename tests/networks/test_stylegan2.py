"""StyleGAN2 and StyleGAN against the published equations, written here in float64 and in their most literal form.

The literal StyleGAN2 (arXiv 1912.04958) scales and demodulates a weight tensor for each sample (eqs. 1 to 3), scatters
up-sampling kernels pixel by pixel and filters by the definition of ``upfirdn``; nothing of it is shared with the
networks. The literal StyleGAN is in :mod:`tests.export.test_conversion`, on a checkpoint's own tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from export.serve.exporters import load_torchscript, to_onnx, to_torchscript
from export.serve.graph import Graph
from networks.resampling import binomial, blur, upsample
from networks.stylegan import StyleGAN, UpConv, stretched
from networks.stylegan2 import Architecture, ModulatedConv, Shape, StyleGAN2, ToRGB
from networks.synthesis import Synthesis
from protocol.cuts import CUTS, W_PLUS
from tests.export.publishers import filled
from tests.networks.literal import Literal, assert_near, correlate, upfirdn

CHANNELS = (14, 12, 10, 8)  # 4 to 32 pixels
CLAMP = 0.7
ARCHITECTURES: tuple[Architecture, ...] = ("skip", "resnet")
SKIP_CUT = {8: 2, 16: 4}
RESNET_CUT = {8: 3, 16: 5}


def stylegan2(architecture: Architecture = "skip", clamp: float | None = None) -> StyleGAN2:
    network = StyleGAN2(Shape(channels=CHANNELS, architecture=architecture, clamp=clamp))
    filled(network, 0)
    return network.eval()


def stylegan() -> StyleGAN:
    network = StyleGAN(CHANNELS)
    filled(network, 0)
    return network.eval()


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# The literal StyleGAN2: one sample, [C, S, S], float64.


@pytest.mark.parametrize("clamp", [None, CLAMP])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_follows_the_equations(architecture: Architecture, clamp: float | None) -> None:
    network = stylegan2(architecture, clamp)
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, ModulatedConv | ToRGB):
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    w_plus = drawn(3, network.num_styles, 512)
    with torch.inference_mode():
        image = network(w_plus)
    literal = Literal(network)
    cut_off = False
    for sample in range(3):
        assert_near(image[sample], literal.image(w_plus[sample].double().numpy()))
        assert set(seen) == set(literal.seen)
        for name, expected in literal.seen.items():
            assert_near(seen[name][sample], expected)
            cut_off |= clamp is not None and bool((np.abs(expected) >= clamp * 0.999).any())
    assert cut_off == (clamp is not None)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_halves_follow_the_equations(architecture: Architecture, cut: int) -> None:
    network = stylegan2(architecture)
    n = (SKIP_CUT if architecture == "skip" else RESNET_CUT)[cut]
    assert network.coarse_styles(cut) == n
    w_plus, f = drawn(2, network.num_styles, 512), drawn(2, network.f_channels(cut), cut, cut, seed=2)
    literal = Literal(network)
    with torch.inference_mode():
        coarse, fine = network.coarse(w_plus[:, :n], cut=cut), network.fine(f, w_plus[:, n:])
    for sample in range(2):
        w = w_plus[sample].double().numpy()
        assert_near(coarse[sample], literal.coarse(w[:n], cut))
        assert_near(fine[sample], literal.fine(f[sample].double().numpy(), w[n:]))


@pytest.mark.parametrize("build", [lambda: stylegan2("resnet"), stylegan])
@pytest.mark.parametrize("cut", CUTS)
def test_halves_without_skips_compose_to_the_whole(build: Any, cut: int) -> None:
    network: Synthesis = build()
    n = network.coarse_styles(cut)
    w_plus = drawn(1, network.num_styles, 512)
    with torch.inference_mode():
        image = network(w_plus)
        again = network.fine(network.coarse(w_plus[:, :n], cut=cut), w_plus[:, n:])
    assert torch.allclose(again, image, atol=1e-5 * float(image.abs().max()))


def test_resampling_is_upfirdn() -> None:
    x, kernel = drawn(2, 3, 5, 5), binomial(1, 3, 3, 1)
    for sample in range(2):
        plain = x[sample].double().numpy()
        assert_near(upsample(x, kernel)[sample], upfirdn(plain, up=2, before=2, after=1, gain=4))
        assert_near(blur(x, kernel, gain=4)[sample], upfirdn(plain, up=1, before=1, after=1, gain=4))


@pytest.mark.parametrize("fused", [False, True])
def test_stretched_kernels_are_both_published_forms(fused: bool) -> None:
    """Nearest-neighbour repetition and a 3x3 correlation, or the sum of four shifts scattered; borders included."""
    weight, x = drawn(4, 3, 3, 3), drawn(1, 3, 6, 6, seed=2)
    layer = UpConv(3, 4, 12)
    layer.conv.weight.data.copy_(stretched(weight, fused=fused))
    found = layer.conv(x)[0].detach()
    plain, kernel = x[0].double().numpy(), weight.double().numpy()
    if not fused:
        expected = correlate(plain.repeat(2, axis=1).repeat(2, axis=2), kernel)
    else:
        four = np.zeros((4, 3, 4, 4))
        for dy in (0, 1):
            for dx in (0, 1):
                four[:, :, dy : dy + 3, dx : dx + 3] += kernel
        canvas = np.zeros((4, 14, 14))
        for y in range(6):
            for z in range(6):
                canvas[:, 2 * y : 2 * y + 4, 2 * z : 2 * z + 4] += np.einsum("oikl,i->okl", four, plain[:, y, z])
        expected = canvas[:, 1:-1, 1:-1]
    assert_near(found, expected)


NETWORKS = {"skip": stylegan2, "resnet": lambda: stylegan2("resnet"), "stylegan": stylegan}


@pytest.mark.parametrize("cut", [W_PLUS, *CUTS])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_style_behind_the_cut_is_used_and_told(kind: str, cut: int) -> None:
    network: Synthesis = NETWORKS[kind]()
    count = network.fine_styles(cut)
    f, w = drawn(1, network.f_channels(cut), cut, cut), drawn(1, count, 512, seed=2)
    seen: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.inference_mode():
        image = network.fine(f, w)
        told = network.modulations(w)
        made = seen[: len(seen) // 2]
        assert sorted(out.sum().item() for out in made) == sorted(part.sum().item() for part in seen[len(seen) // 2 :])
        assert len(told) == count
        for i in range(count):
            other = w.clone()
            other[:, i] += drawn(512, seed=3)
            assert (network.fine(f, other) - image).abs().max() > 1e-3
            changed = [not torch.equal(a, b) for a, b in zip(told, network.modulations(other), strict=True)]
            assert changed == [j == i for j in range(count)]


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_batch_is_its_samples(kind: str) -> None:
    network: Synthesis = NETWORKS[kind]()
    w_plus = drawn(3, network.num_styles, 512)
    with torch.inference_mode():
        together = network(w_plus)
        alone = torch.cat([network(w[None]) for w in w_plus])
    assert torch.allclose(together, alone, atol=1e-5 * float(alone.abs().max()))


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 55.0), (torch.bfloat16, 38.0)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_half_precision_is_near_and_finite(kind: str, dtype: torch.dtype, least: float) -> None:
    network, lowered = NETWORKS[kind](), NETWORKS[kind]()
    lowered.lower(dtype, blocks=4)
    w_plus = drawn(2, network.num_styles, 512)
    with torch.inference_mode():
        image, found = network(w_plus), lowered(w_plus)
        assert found.dtype == torch.float32
        error = (found - image).square().mean()
        assert 10 * torch.log10((image.max() - image.min()) ** 2 / error) >= least
        assert not torch.equal(found, image)


def test_half_precision_does_not_overflow() -> None:
    """Weights and styles far beyond what halves hold, as the published pre-normalisation bears them."""
    network = StyleGAN2(Shape(channels=CHANNELS, clamp=256))
    filled(network, 0)
    for module in network.modules():
        if isinstance(module, ModulatedConv):
            module.weight.data *= 1e4
            module.modulation.weight.data *= 1e4
    lowered = StyleGAN2(network.shape)
    lowered.load_state_dict(network.state_dict())
    lowered.lower(torch.float16)
    w_plus = drawn(1, network.num_styles, 512)
    with torch.inference_mode():
        image, found = network(w_plus), lowered(w_plus)
    assert torch.isfinite(found).all()
    assert (found - image).abs().max() < 0.02 * image.abs().max()


@pytest.mark.parametrize("kind", NETWORKS)
def test_graphs_have_a_free_batch(kind: str, tmp_path: Path) -> None:
    network: Synthesis = NETWORKS[kind]()
    network.requires_grad_(requires_grad=False)

    class Fine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, f: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return self.network.fine(f, w)

    def feed(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        return drawn(batch, network.f_channels(16), 16, 16), drawn(batch, network.fine_styles(16), 512, seed=2)

    graph = Graph(
        name="fine", build=Fine, inputs=dict(zip(("f", "w"), feed(2), strict=True)), outputs=("image",), weights=()
    )
    module = graph.build().eval()
    to_onnx(graph, module, tmp_path / "fine.onnx")
    to_torchscript(graph, module, tmp_path / "fine.pt")
    session = onnxruntime.InferenceSession(tmp_path / "fine.onnx", providers=["CPUExecutionProvider"])
    scripted = load_torchscript(tmp_path / "fine.pt")
    for batch in (1, 3):
        f, w = feed(batch)
        with torch.inference_mode():
            expected = module(f, w)
            assert torch.allclose(cast("torch.Tensor", scripted(f, w)), expected, atol=1e-5)
        (found,) = session.run(None, {"f": f.numpy(), "w": w.numpy()})
        assert np.abs(found - expected.numpy()).max() <= 1e-5 * float(expected.abs().max())


def test_what_does_not_fit_is_refused() -> None:
    network = stylegan2()
    for cut in (2, 32):
        with pytest.raises(ValueError, match="cut must be one of"):
            network.coarse_styles(cut)
    with pytest.raises(ValueError, match="smaller than 32 px"):
        Shape(channels=(8, 8, 8))
    with pytest.raises(ValueError, match="smaller than 32 px"):
        StyleGAN((8, 8, 8))
    with pytest.raises(ValueError, match="leaves 99 styles"):
        network.cut_of(99)
    with pytest.raises(AssertionError):
        network(drawn(1, 3, 512))
    with pytest.raises(AssertionError):
        network.fine(drawn(1, 10, 16, 16), drawn(1, 2, 512))
