"""StyleGAN against its published equations, written out here in float64 by definition, one sample at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.serve.exporters import load_torchscript, to_onnx, to_torchscript
from export.serve.graph import Graph
from networks.stylegan import Epilogue, StyleGAN, UpConv, stretched
from networks.synthesis import Synthesis
from protocol.cuts import CUTS
from tests.networks.literal import assert_near

Array = NDArray[np.float64]
Seen = tuple[str, Tensor, Tensor]  # a module's name, last input and output
CHANNELS = (12, 11, 10, 9)  # 4 to 32 pixels, no two alike
LAST = len(CHANNELS) - 2  # index of the last block
FUSED = (False, True, False)  # blocks that scatter their kernels
BEFORE = {8: 3, 16: 5}  # styles before a cut
cuts = pytest.mark.parametrize("cut", CUTS)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def published_kernel(i: int) -> Tensor:
    """Of the first layer of a block, [out, in, 3, 3]."""
    return drawn(CHANNELS[i + 1], CHANNELS[i], 3, 3, seed=100 + i) / (9 * CHANNELS[i]) ** 0.5


def made() -> StyleGAN:
    """Nothing in it is zero or one; up-sampling kernels are published ones."""
    network = StyleGAN(CHANNELS).requires_grad_(False).eval()
    for seed, (name, value) in enumerate(network.state_dict().items()):
        value.copy_(drawn(*value.shape, seed=seed) * (value[0].numel() ** -0.5 if name.endswith("weight") else 0.5))
    for i, block in enumerate(cast("Any", network.blocks)):
        block.conv1.conv.weight.copy_(stretched(published_kernel(i), fused=FUSED[i]))
    return network


# By definition: maps [C, H, W] of one sample, kernels [out, in, k, k].


def correlated(x: Array, kernel: Array) -> Array:
    size = kernel.shape[2]
    border = (size - 1) // 2
    padded = np.pad(x, ((0, 0), (border, border), (border, border)))
    out = np.empty((kernel.shape[0], *x.shape[1:]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            out[:, row, column] = (kernel * padded[None, :, row : row + size, column : column + size]).sum((1, 2, 3))
    return out


def repeated(x: Array, kernel: Array) -> Array:
    """Every pixel four times, then the 3x3 kernel."""
    twice = x[:, np.arange(2 * x.shape[1]) // 2][:, :, np.arange(2 * x.shape[2]) // 2]
    return correlated(twice, kernel)


def scattered(x: Array, kernel: Array) -> Array:
    """Every pixel adds a 4x4 kernel, two pixels apart, that is the 3x3 kernel at four places; borders cut off."""
    four = np.zeros((*kernel.shape[:2], 4, 4))
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        four[:, :, down : down + 3, right : right + 3] += kernel
    out = np.zeros((kernel.shape[0], 2 * x.shape[1] + 2, 2 * x.shape[2] + 2))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            added = (four * x[None, :, row, column, None, None]).sum(1)
            out[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += added
    return out[:, 1:-1, 1:-1]


def blurred(x: Array) -> Array:
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    return np.stack([correlated(channel[None], kernel[None, None])[0] for channel in x])


class Literal:
    """One sample through a network's tensors; remembers what every layer gave."""

    def __init__(self, network: StyleGAN) -> None:
        self.tensors = {name: value.double().numpy() for name, value in network.state_dict().items()}
        self.seen: dict[str, Array] = {}

    def epilogue(self, name: str, x: Array, w: Array) -> Array:
        tensors, channels = self.tensors, x.shape[0]
        style = tensors[f"{name}.style.weight"] @ w + tensors[f"{name}.style.bias"]
        out = np.empty_like(x)
        for channel in range(channels):
            y = x[channel] + tensors[f"{name}.noise_strength"][channel] * tensors[f"{name}.noise"]
            y = y + tensors[f"{name}.bias"][channel]
            y = np.where(y >= 0, y, 0.2 * y)
            y = (y - y.mean()) / np.sqrt(((y - y.mean()) ** 2).mean() + 1e-8)
            out[channel] = y * (style[channel] + 1) + style[channels + channel]
        self.seen[name] = out
        return out

    def conv(self, name: str, x: Array, w: Array) -> Array:
        return self.epilogue(f"{name}.epilogue", correlated(x, self.tensors[f"{name}.conv.weight"]), w)

    def up(self, i: int, x: Array, w: Array) -> Array:
        kernel = published_kernel(i).double().numpy()
        x = blurred(scattered(x, kernel) if FUSED[i] else repeated(x, kernel))
        return self.epilogue(f"blocks.{i}.conv1.epilogue", x, w)

    def coarse(self, w_plus: Array, cut: int) -> Array:
        """w_plus [n, 512] of all layers here and below."""
        x = self.conv("conv", self.epilogue("input", self.tensors["constant"][0], w_plus[0]), w_plus[1])
        x = self.up(0, x, w_plus[2])
        return x if cut == 8 else self.up(1, self.conv("blocks.0.conv2", x, w_plus[3]), w_plus[4])

    def fine(self, f: Array, w_plus: Array) -> Array:
        i = {8: 0, 16: 1}[f.shape[1]]
        x = self.conv(f"blocks.{i}.conv2", f, w_plus[2 * i + 3])
        for later in range(i + 1, LAST + 1):
            x = self.up(later, x, w_plus[2 * later + 2])
            x = self.conv(f"blocks.{later}.conv2", x, w_plus[2 * later + 3])
        return correlated(x, self.tensors["to_rgb.weight"]) + self.tensors["to_rgb.bias"][:, None, None]


def traced(network: nn.Module, kind: Any, call: Callable[[], Tensor]) -> tuple[Tensor, list[Seen]]:
    """The result of a call, and all calls of modules of a kind in their order."""
    seen: list[Seen] = []

    def hook(name: str) -> Any:
        return lambda _module, given, output: seen.append((name, given[-1], output))

    handles = [m.register_forward_hook(hook(name)) for name, m in network.named_modules() if isinstance(m, kind)]
    result = call()
    for handle in handles:
        handle.remove()
    return result, seen


def assert_same(network: StyleGAN, call: Callable[[], Tensor], literal: Callable[[Literal, int], Array]) -> None:
    """Results and the outputs of all layers agree, for three samples."""
    result, seen = traced(network, Epilogue, call)
    for sample in range(3):
        expected = Literal(network)
        assert_near(result[sample], literal(expected, sample))
        assert [name for name, _, _ in seen] == list(expected.seen)
        for name, _, output in seen:
            assert_near(output[sample], expected.seen[name], name)


@cuts
def test_the_whole_and_its_halves(cut: int) -> None:
    network, w_plus, n = made(), drawn(3, 8, 512, seed=1), BEFORE[cut]
    assert (network.size, network.num_styles, network.coarse_styles(cut)) == (32, 8, n)
    f, plain = drawn(3, CHANNELS[{8: 1, 16: 2}[cut]], cut, cut, seed=2), w_plus.double().numpy()
    assert_same(network, lambda: network.coarse(w_plus[:, :n], cut=cut), lambda lit, i: lit.coarse(plain[i], cut))
    given = f.double().numpy()
    assert_same(network, lambda: network.fine(f, w_plus[:, n:]), lambda lit, i: lit.fine(given[i], plain[i]))
    assert_same(network, lambda: network(w_plus), lambda lit, i: lit.fine(lit.coarse(plain[i], cut), plain[i]))


@pytest.mark.parametrize("fused", [False, True])
def test_both_published_ways_to_twice_the_size(fused: bool) -> None:
    """Borders included, and before the epilogue, which would hide a factor."""
    kernel, x, layer = drawn(4, 3, 3, 3, seed=1), drawn(2, 3, 5, 5, seed=2), UpConv(3, 4, 10).requires_grad_(False)
    layer.conv.weight.copy_(stretched(kernel, fused=fused))
    given: list[Tensor] = []
    layer.epilogue.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    layer(x, drawn(2, 512, seed=3))
    for sample in range(2):
        plain, three = x[sample].double().numpy(), kernel.double().numpy()
        expected = scattered(plain, three) if fused else repeated(plain, three)
        assert_near(layer.conv(x)[sample], expected)
        assert_near(given[0][sample], blurred(expected))


def test_the_term_that_keeps_normalisation_from_dividing_by_zero() -> None:
    """A map so flat that it matters: its variance is about 1e-8."""
    network, x, w = made(), 1e-4 * drawn(1, 12, 4, 4, seed=1), drawn(1, 512, seed=2)
    network.input.noise.mul_(1e-4)
    network.input.bias.mul_(1e-4)
    expected = Literal(network).epilogue("input", x[0].double().numpy(), w[0].double().numpy())
    assert_near(network.input(x, w)[0], expected)


@cuts
def test_styles_of_the_fine_half(cut: int) -> None:
    network, n = made(), 8 - BEFORE[cut]
    f, w = drawn(2, network.f_channels(cut), cut, cut, seed=1), drawn(2, n, 512, seed=2)
    assert (network.fine_styles(cut), network.cut_of(n)) == (n, cut)
    image, seen = traced(network, nn.Linear, lambda: network.fine(f, w))
    told = network.modulations(w)
    assert (len(told), len(seen)) == (n, n)
    for i, (_, given, output) in enumerate(seen):
        assert torch.equal(given, w[:, i])
        assert torch.equal(told[i], output)
        other = w.clone()
        other[:, i] += drawn(512, seed=3)
        assert (network.fine(f, other) - image).abs().amax(dim=(1, 2, 3)).min() > 1e-2


def test_a_batch_equals_its_samples() -> None:
    network, w_plus, f = made(), drawn(3, 8, 512, seed=1), drawn(3, 10, 16, 16, seed=2)
    together = network(w_plus), network.coarse(w_plus[:, :5], cut=16), network.fine(f, w_plus[:, 5:])
    for i in range(3):
        w = w_plus[i : i + 1]
        alone = network(w), network.coarse(w[:, :5], cut=16), network.fine(f[i : i + 1], w[:, 5:])
        assert all(torch.allclose(a[i], b[0], atol=1e-5) for a, b in zip(together, alone, strict=True))


def psnr(found: Tensor, image: Tensor) -> float:
    return float(10 * ((image.max() - image.min()) ** 2 / (found - image).square().mean()).log10())


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 65.0), (torch.bfloat16, 50.0)])
def test_half_precision(dtype: torch.dtype, least: float) -> None:
    network, lowered, w_plus = made(), made(), drawn(3, 8, 512, seed=1)
    convs = [m for m in lowered.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][:-1]  # not to RGB
    for blocks, full in ((1, 5), (4, 1)):
        lowered.lower(dtype, blocks=blocks)
        assert [m.weight.dtype for m in convs] == [torch.float32] * full + [dtype] * (7 - full)
    assert lowered.coarse(w_plus[:, :5], cut=16).dtype == lowered(w_plus).dtype == torch.float32
    assert psnr(lowered(w_plus), network(w_plus)) >= least


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 60.0), (torch.bfloat16, 45.0)])
def test_half_precision_far_out(dtype: torch.dtype, least: float) -> None:
    """Weights a thousand and styles a hundred times too large; normalisation undoes the former."""
    network, lowered, f, w = made(), made(), drawn(2, 11, 8, 8, seed=1), 1e2 * drawn(2, 5, 512, seed=2)
    for name, value in (*network.state_dict().items(), *lowered.state_dict().items()):
        value.mul_(1e3 if name.endswith("conv.weight") else 1)
    lowered.lower(dtype)
    found, seen = traced(lowered, Epilogue, lambda: lowered.fine(f, w))
    assert all(torch.isfinite(output).all() for _, _, output in seen)
    assert psnr(found, network.fine(f, w)) >= least


def assert_graphs_of_the_fine_half(network: Synthesis, folder: Path) -> None:
    """ONNX and TorchScript agree with the network, at other batches than the one they were exported with."""
    module = nn.Module().eval()
    module.add_module("network", network)
    module.forward = network.fine

    def fed(batch: int) -> dict[str, Tensor]:
        f = drawn(batch, network.f_channels(16), 16, 16, seed=1)
        return {"f": f, "w_m_plus": drawn(batch, network.fine_styles(16), 512, seed=2)}

    graph = Graph(name="fine", build=lambda: module, inputs=fed(2), outputs=("image",), weights=())
    to_onnx(graph, module, folder / "fine.onnx")
    to_torchscript(graph, module, folder / "fine.pt")
    session = onnxruntime.InferenceSession(folder / "fine.onnx", providers=["CPUExecutionProvider"])
    script = cast("Callable[..., Tensor]", load_torchscript(folder / "fine.pt"))
    for batch in (1, 3):
        expected = network.fine(**fed(batch))
        (image,) = session.run(None, {name: value.numpy() for name, value in fed(batch).items()})
        assert np.abs(image - expected.numpy()).max() <= 1e-4
        assert image.shape == (batch, 3, 32, 32)
        assert (script(*fed(batch).values()) - expected).abs().max() <= 1e-5


def test_graphs_of_the_fine_half(tmp_path: Path) -> None:
    assert_graphs_of_the_fine_half(made(), tmp_path)


def assert_refusals(network: Synthesis) -> None:
    """Of cuts, and of shapes; the network has 10 channels at 16x16 and eight styles."""
    for cut in (2, 32):
        for call in (network.coarse_styles, lambda cut: network.coarse(drawn(1, 5, 512, seed=1), cut=cut)):
            with pytest.raises(ValueError, match="cut must be one of"):
                call(cut)
    with pytest.raises(ValueError, match="no cut of this network leaves 9 styles"):
        network.modulations(drawn(1, 9, 512, seed=1))
    n = network.fine_styles(16)
    f, w = drawn(1, 10, 16, 16, seed=1), drawn(1, n, 512, seed=2)
    for wrong in (drawn(1, 1, 512, seed=1), w[0], drawn(1, 8 - n, 256, seed=1)):
        for call in (network, lambda wrong: network.coarse(wrong, cut=16), lambda wrong: network.fine(f, wrong)):
            with pytest.raises(AssertionError):
                call(wrong)
    for wrong in (f[0], f[:, :9], f[..., 8:], drawn(1, 10, 32, 32, seed=1)):
        with pytest.raises(AssertionError):
            network.fine(wrong, w)


def test_what_does_not_fit() -> None:
    assert_refusals(made())
    with pytest.raises(ValueError, match="smaller than 32 px"):
        StyleGAN(CHANNELS[:3])
