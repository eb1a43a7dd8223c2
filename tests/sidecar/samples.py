"""Generators, engines and starts that tests of the optimisation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from assets.perceptual import stlpips
from export.generator import load_generator
from judges.reconstruction import Judge
from networks.detail import Detail
from networks.generator_file import Generator
from networks.mapping import MappingNetwork
from networks.pixels import to_array
from networks.pnorm import load_pnorm
from networks.stylegan2 import Shape, StyleGAN2
from protocol.messages import State
from sidecar.job import Start
from sidecar.optimise.engine import LEARNED, TorchEngine
from sidecar.optimise.faces import FaceTerms
from sidecar.optimise.optimisation import Optimisation


def sample(seed: int) -> Start:
    """A generator sample, with an f that is off and styles at the mean."""
    generator = load_generator("ffhq")
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        w = generator.mapping(torch.randn(1, 512, generator=rng), 0.7)
        f = generator.synthesis.coarse(w[:, None].expand(1, 4, -1), cut=16)
        image = generator.synthesis.fine(f, w[:, None].expand(1, 12, -1))
        pixels = to_array(image)
        off = (f + 0.1 * torch.randn(f.shape, generator=rng))[0].numpy()
        mean = generator.mapping.w_avg.numpy()
    return Start(target=pixels, f=off, w_m_plus=mean[None].repeat(12, axis=0), f_o=off)


def left(start: Start) -> Start:
    """A start that has left f^o."""
    return replace(start, f=start.f + np.float32(1e-3))


def finish(engine: TorchEngine, jobs: Sequence[Optimisation], *, slices: int = 2) -> None:
    while any(job.reason is None for job in jobs):
        engine.run([job for job in jobs if job.reason is None], slices)


def same(a: State, b: State) -> float:
    """Largest difference of two states' codes."""
    return max(float(np.abs(x - y).max()) for x, y in ((a.f, b.f), (a.w_m_plus, b.w_m_plus)))


def small_engine(dtype: torch.dtype = torch.float32) -> TorchEngine:
    """A StyleGAN2 of 64 px with random weights, and Alex for VGG."""
    torch.manual_seed(0)
    synthesis = StyleGAN2(Shape(channels=(24, 24, 24, 16, 12))).eval().requires_grad_(requires_grad=False)
    mapping = MappingNetwork(depth=2).eval().requires_grad_(requires_grad=False)
    return TorchEngine(
        Generator(mapping=mapping.to(dtype), synthesis=synthesis.to(dtype), fingerprint="0" * 16),
        pnorm=load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors").to(dtype), perceptual=stlpips("alex").to(dtype),
        judge=Judge(), domain="small", device=torch.device("cpu"), compiled=False,
    )  # fmt: skip


def middle_engine(
    w_encoder: Detail | None = None, *, faces: FaceTerms | None = None, judge: Judge | None = None
) -> TorchEngine:
    """A thin StyleGAN2 of 512 px with random weights, and Alex for VGG: every coarse side, at a tenth of the cost."""
    torch.manual_seed(0)
    synthesis = StyleGAN2(Shape(channels=(24, 24, 24, 16, 12, 8, 8, 8))).eval().requires_grad_(requires_grad=False)
    mapping = MappingNetwork(depth=2).eval().requires_grad_(requires_grad=False)
    return TorchEngine(
        Generator(mapping=mapping, synthesis=synthesis, fingerprint="1" * 16),
        pnorm=load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors"), perceptual=stlpips("alex"),
        judge=judge or Judge(), domain="middle", device=torch.device("cpu"), compiled=False, w_encoder=w_encoder,
        faces=faces,
    )  # fmt: skip


def at_f_o(start: Start) -> Start:
    """A start at f^o, as jobs that go from coarse to fine have it."""
    return replace(start, f=start.f_o)


@torch.no_grad()
def small_start(engine: TorchEngine, seed: int) -> Start:
    """A sample of the small generator, with an f that is off."""
    synthesis, w_avg = engine._synthesis, engine._w_avg
    rng = torch.Generator().manual_seed(seed)
    f = torch.randn(24, 16, 16, generator=rng)
    w = w_avg.float() + torch.randn(1, 512, generator=rng).to(w_avg.dtype)
    w_m_plus = w.expand(synthesis.fine_styles(16), -1)
    image = synthesis.fine(f[None].to(w_avg.dtype), w_m_plus[None])
    pixels = to_array(image)
    off = f.numpy() + np.float32(0.3)
    return Start(target=pixels, f=off, w_m_plus=w_m_plus.numpy().astype(np.float32), f_o=f.numpy())


@torch.no_grad()
def w_plus_start(engine: TorchEngine, seed: int = 3) -> Start:
    """A generator sample in W+: f the constant, all styles a little off."""
    synthesis = engine._synthesis
    rng = torch.Generator().manual_seed(seed)
    w = (engine._w_avg + torch.randn(1, 512, generator=rng))[:, None].expand(1, synthesis.num_styles, -1)
    pixels = to_array(synthesis(w))
    f = synthesis.coarse(w[:, :0], cut=4)[0].numpy()
    off = (w + 0.1 * torch.randn(w.shape, generator=rng))[0].numpy()
    return Start(target=pixels, f=f, w_m_plus=off, f_o=f)
