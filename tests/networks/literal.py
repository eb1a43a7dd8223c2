"""StyleGAN2 as its paper writes it, in float64 and in the most literal form; nothing is shared with the networks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from networks.stylegan2 import StyleGAN2

Floats = NDArray[np.float64]


def assert_near(found: torch.Tensor, expected: Floats, name: str = "", *, bound: float = 1e-5) -> None:
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert np.abs(found.double().numpy() - expected).max() <= bound * np.abs(expected).max(), name


def upfirdn(x: Floats, *, up: int, before: int, after: int, gain: float) -> Floats:
    """Zeros between the samples, zeros around, then convolution with [1, 3, 3, 1] in both directions."""
    channels, height, width = x.shape
    stuffed = np.zeros((channels, height * up, width * up))
    stuffed[:, ::up, ::up] = x
    padded = np.pad(stuffed, ((0, 0), (before, after), (before, after)))
    taps = np.array([1.0, 3.0, 3.0, 1.0])
    kernel = gain * np.outer(taps, taps)[::-1, ::-1] / taps.sum() ** 2
    out = np.zeros((channels, padded.shape[1] - 3, padded.shape[2] - 3))
    for dy in range(4):
        for dx in range(4):
            out += kernel[dy, dx] * padded[:, dy : dy + out.shape[1], dx : dx + out.shape[2]]
    return out


def correlate(x: Floats, weight: Floats) -> Floats:
    """weight [O, I, k, k], zeros around: the layers' convolution."""
    border = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (border, border), (border, border)))
    out = np.zeros((len(weight), *x.shape[1:]))
    for dy in range(weight.shape[2]):
        for dx in range(weight.shape[3]):
            window = padded[:, dy : dy + x.shape[1], dx : dx + x.shape[2]]
            out += np.einsum("oi,ihw->ohw", weight[:, :, dy, dx], window)
    return out


def scatter(x: Floats, weight: Floats) -> Floats:
    """Transposed convolution by definition: every pixel adds its kernel, at twice its place."""
    out = np.zeros((len(weight), 2 * x.shape[1] + 1, 2 * x.shape[2] + 1))
    for y in range(x.shape[1]):
        for z in range(x.shape[2]):
            out[:, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3] += np.einsum("oikl,i->okl", weight, x[:, y, z])
    return out


class Literal:
    """The published network on the tensors of one of ours."""

    def __init__(self, network: StyleGAN2) -> None:
        self.state = {k: v.double().numpy() for k, v in network.state_dict().items()}
        self.shape, self.seen = network.shape, dict[str, Floats]()

    def bound(self, x: Floats, gain: float = 1.0) -> Floats:
        return x if self.shape.clamp is None else np.clip(x, -self.shape.clamp * gain, self.shape.clamp * gain)

    def layer(self, name: str, x: Floats, w: Floats, *, up: bool = False, gain: float = 1.0) -> Floats:
        s = self.state
        style = s[f"{name}.modulation.weight"] @ w + s[f"{name}.modulation.bias"]
        weight = style[None, :, None, None] * s[f"{name}.weight"]  # eq. 1
        weight = weight / np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)  # eq. 3
        x = upfirdn(scatter(x, weight), up=1, before=1, after=1, gain=4) if up else correlate(x, weight)
        x = x + s[f"{name}.noise"] + s[f"{name}.bias"][:, None, None]
        x = np.where(x < 0, 0.2 * x, x) * np.sqrt(2) * gain
        self.seen[name] = self.bound(x, gain)
        return self.seen[name]

    def to_rgb(self, name: str, x: Floats, w: Floats) -> Floats:
        s = self.state
        style = s[f"{name}.modulation.weight"] @ w + s[f"{name}.modulation.bias"]
        image = correlate(x, style[None, :, None, None] * s[f"{name}.conv.weight"])
        self.seen[name] = self.bound(image + s[f"{name}.conv.bias"][:, None, None])
        return self.seen[name]

    def block(self, i: int, x: Floats, w1: Floats, w2: Floats) -> Floats:
        if self.shape.architecture == "skip":
            return self.layer(f"blocks.{i}.conv2", self.layer(f"blocks.{i}.conv1", x, w1, up=True), w2)
        across = upfirdn(correlate(x, self.state[f"blocks.{i}.skip.weight"]), up=2, before=2, after=1, gain=4)
        through = self.layer(f"blocks.{i}.conv1", x, w1, up=True)
        return across * np.sqrt(0.5) + self.layer(f"blocks.{i}.conv2", through, w2, gain=np.sqrt(0.5))

    def image(self, w: Floats) -> Floats:
        """w [n, 512] -> [3, S, S]."""
        x = self.layer("input", self.state["constant"][0], w[0])
        image = self.to_rgb("to_rgb", x, w[1]) if self.shape.architecture == "skip" else None
        return self.blocks(x, w[1:], range(len(self.shape.channels) - 1), image)

    def blocks(self, x: Floats, w: Floats, which: range, image: Floats | None) -> Floats:
        for at, i in enumerate(which):
            x = self.block(i, x, w[2 * at], w[2 * at + 1])
            if self.shape.architecture == "skip":
                own = self.to_rgb(f"blocks.{i}.to_rgb", x, w[2 * at + 2])
                image = own if image is None else own + upfirdn(image, up=2, before=2, after=1, gain=4)
        last = len(self.shape.channels) - 2
        final = image if self.shape.architecture == "skip" else self.to_rgb(f"blocks.{last}.to_rgb", x, w[-1])
        assert final is not None
        return final

    def coarse(self, w: Floats, cut: int) -> Floats:
        """w [n, 512] -> f [C, cut, cut]."""
        x, last = self.layer("input", self.state["constant"][0], w[0]), {8: 0, 16: 1}[cut]
        for i in range(last):
            x = self.block(i, x, w[2 * i + 1], w[2 * i + 2])
        if self.shape.architecture == "resnet":
            return self.block(last, x, w[2 * last + 1], w[2 * last + 2])
        return self.layer(f"blocks.{last}.conv1", x, w[2 * last + 1], up=True)

    def fine(self, f: Floats, w: Floats) -> Floats:
        """f [C, cut, cut], w [n, 512] -> [3, S, S]; with RGB skips the image starts at the cut, from black."""
        i = {8: 0, 16: 1}[f.shape[1]]
        if self.shape.architecture == "resnet":
            return self.blocks(f, w, range(i + 1, len(self.shape.channels) - 1), None)
        x = self.layer(f"blocks.{i}.conv2", f, w[0])
        return self.blocks(
            x, w[1:], range(i + 1, len(self.shape.channels) - 1), self.to_rgb(f"blocks.{i}.to_rgb", x, w[1])
        )
