"""The optimisation: its terms, jobs that do not see each other, a resumed job that is the same job, how jobs end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from export.generator import load_generator
from judges.perceptual import stlpips
from judges.reconstruction import Judge
from networks.detail import Detail
from networks.generator_file import Generator
from networks.mapping import MappingNetwork
from networks.pnorm import load_pnorm
from networks.stylegan2 import Shape, StyleGAN2
from sidecar.job import InvalidRequest, Options, Start, State
from sidecar.optimise.engine import LEARNED, EngineError, TorchEngine, load_engine
from sidecar.optimise.optimisation import Refinement
from sidecar.optimise.recipe import chosen


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return load_engine(device="cpu", compiled=False)


@pytest.fixture(scope="module")
def start() -> Start:
    return sample(1)


@pytest.fixture(scope="module")
def stepped(engine: TorchEngine, start: Start) -> Refinement:
    job = engine.open(start, Options(steps=5))
    engine.run([job], 1)
    return job


def sample(seed: int) -> Start:
    """A generator sample, with an f that is off and styles at the mean."""
    generator = load_generator("ffhq")
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        w = generator.mapping(torch.randn(1, 512, generator=rng), 0.7)
        f = generator.synthesis.coarse(w[:, None].expand(1, 4, -1), cut=16)
        image = generator.synthesis.fine(f, w[:, None].expand(1, 12, -1))
        pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        off = (f + 0.1 * torch.randn(f.shape, generator=rng))[0].numpy()
        mean = generator.mapping.w_avg.numpy()
    return Start(target=pixels, f=off, w_m_plus=mean[None].repeat(12, axis=0), f_o=off)


def left(start: Start) -> Start:
    """A start that has left f^o."""
    return replace(start, f=start.f + np.float32(1e-3))


def finish(engine: TorchEngine, jobs: Sequence[Refinement], *, slices: int = 2) -> None:
    while any(job.reason is None for job in jobs):
        engine.run([job for job in jobs if job.reason is None], slices)


def same(a: State, b: State) -> float:
    """Largest difference of two states' codes."""
    return max(float(np.abs(x - y).max()) for x, y in ((a.f, b.f), (a.w_m_plus, b.w_m_plus)))


def test_the_terms_are_the_papers(engine: TorchEngine, start: Start) -> None:
    job = engine.open(start, Options(preset="paper", steps=1))
    engine.run([job], 1)
    terms = job.state().terms
    assert terms is not None
    generator, pnorm = load_generator("ffhq"), load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors")
    with torch.no_grad():
        f, w = (torch.from_numpy(x)[None] for x in (start.f, start.w_m_plus))
        image = generator.synthesis.fine(f, w)
        target = torch.from_numpy(start.target).permute(2, 0, 1)[None].float() / 127.5 - 1
        small = [F.interpolate(x, size=(256, 256), mode="area") for x in (image, target)]
        literal = {
            "mse": F.mse_loss(image, target),
            "perceptual": stlpips("vgg")(*small)[0],
            "f": torch.zeros(()),
            "p_norm": pnorm(w).square().mean(),
        }
    for name, value in literal.items():
        assert getattr(terms, name) == pytest.approx(float(value), rel=1e-4)
    weighted = literal["mse"] + 10 * literal["perceptual"] + 10 * literal["f"] + 0.01 * literal["p_norm"]
    assert terms.total == pytest.approx(float(weighted), rel=1e-4)
    # Adam's first step moves every coordinate by the learning rate, against the gradient's sign.
    moved = np.abs(job.state().f - start.f)
    assert moved.max() == pytest.approx(0.01, rel=1e-2)
    assert np.median(moved) == pytest.approx(0.01, rel=1e-2)


def test_the_paper_preset_starts_at_the_mean_of_w(engine: TorchEngine, start: Start) -> None:
    elsewhere = replace(start, w_m_plus=start.w_m_plus + 1)
    assert np.array_equal(engine.open(elsewhere, Options(preset="paper")).state().w_m_plus, start.w_m_plus)
    assert not np.allclose(engine.open(elsewhere, Options()).state().w_m_plus, start.w_m_plus, atol=0.5)


def test_a_coarse_step_compares_reduced_images(engine: TorchEngine, start: Start) -> None:
    job = engine.open(start, Options(steps=10))
    engine.run([job], 1)
    terms = job.state().terms
    assert terms is not None
    pixels = torch.from_numpy(start.target).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        opened = engine.open(start, Options())
        image = load_generator("ffhq").synthesis.fine(opened.f, opened.w_m_plus)
        at = {side: [F.interpolate(x, size=(side, side), mode="area") for x in (image, pixels)] for side in (64, 32)}
        mse, perceptual = float(F.mse_loss(*at[64])), float(stlpips("vgg")(*at[32])[0])
    # The step itself may run in bfloat16.
    assert terms.mse == pytest.approx(mse, rel=0.02)
    assert terms.perceptual == pytest.approx(perceptual, rel=0.05)


def test_a_job_goes_from_coarse_to_fine_unless_it_has_left_f_o(engine: TorchEngine, start: Start) -> None:
    job, sides = engine.open(start, Options(steps=10)), []
    for _ in range(5):
        sides.append(job.side)
        engine.run([job], 1)
    assert sides == [64, 128, 256, 256, None]
    # A checkpoint that is past the coarse steps stays so, however many steps are added,
    assert engine.open(start, Options(steps=1000), job.state()).side is None
    # and one that is not goes on with them, whatever the request says of f.
    early = engine.open(start, Options(steps=10))
    engine.run([early], 2)
    assert engine.open(left(start), Options(steps=10), early.state()).side == 256
    assert engine.open(left(start), Options()).side is None
    assert engine.open(start, Options(preset="paper")).side is None


# Jobs at f^o go through the coarse sides, jobs that have left it do not.
@pytest.mark.parametrize("moved", [False, True])
def test_in_turn_a_job_is_the_same_alone_in_company_and_resumed(engine: TorchEngine, start: Start, moved: bool) -> None:
    options = Options(steps=5)
    other = left(sample(2)) if moved else sample(2)
    start = left(start) if moved else start
    alone = engine.open(start, options)
    engine.run([alone], 3)
    half_way = alone.state()
    finish(engine, [alone])
    assert alone.reason == "steps"

    company = beside_a_neighbour(engine, start, other)
    assert same(company, alone.state()) == 0
    assert company.terms == alone.state().terms

    resumed = engine.open(start, options, half_way)
    assert resumed.state().step == 3
    finish(engine, [resumed])
    assert same(resumed.state(), alone.state()) == 0
    assert resumed.state().terms == alone.state().terms


def beside_a_neighbour(engine: TorchEngine, start: Start, other: Start) -> State:
    """Five steps beside a job that leaves after two of them and comes back for the last."""
    job, neighbour = engine.open(start, Options(steps=5)), engine.open(other, Options(steps=9))
    engine.run([job, neighbour], 2)
    engine.run([job], 2)
    engine.run([neighbour, job], 1)
    assert (job.reason, neighbour.state().step) == ("steps", 3)
    return job.state()


# A batch runs other kernels than a single image, and their sums round differently: by up to 1.4e-5 in a gradient whose
# median is 2e-4. Adam's first steps have the size of the rate whatever the gradient's, so where a gradient is below its
# own rounding the step may go the other way (0.03 % of f, by 0.009). Codes after a few steps of float32 are therefore
# no measure of a fault in batching. Gradients are, and codes in float64, where rounding stays far below Adam's epsilon.
def test_in_a_batch_each_job_has_its_own_gradients(
    engine: TorchEngine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(chosen(Options(steps=5)), half=False)
    starts = [left(start), left(sample(2))]
    alone = [engine.begin(one, recipe) for one in starts]
    for job in alone:
        engine.run([job], 1)
    monkeypatch.setattr(engine, "_largest", None)  # as on a GPU
    together = [engine.begin(one, recipe) for one in starts]
    engine.run(together, 1)
    for one, other in zip(alone, together, strict=True):
        for name in ("f", "w"):
            # After one step Adam's first moment is the gradient, scaled.
            expected, found = (job.state().optimiser[f"{name}.exp_avg"] for job in (one, other))
            assert np.linalg.norm(found - expected) < 0.005 * np.linalg.norm(expected)
        assert other.terms is not None and one.terms is not None
        for name, value in vars(one.terms).items():
            assert getattr(other.terms, name) == pytest.approx(value, rel=1e-5)


def test_in_float64_a_batch_changes_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    small = small_engine(torch.float64)
    start, other = small_start(small, 1), small_start(small, 2)
    alone = small.open(start, Options(steps=5))
    finish(small, [alone])
    monkeypatch.setattr(small, "_largest", None)  # as on a GPU
    # A state is stored in float32.
    assert same(beside_a_neighbour(small, start, other), alone.state()) < 1e-6


def test_it_comes_closer(engine: TorchEngine, start: Start) -> None:
    job = engine.open(start, Options(steps=8))
    first = engine.terms(start, job.state())
    finish(engine, [job])
    last = engine.terms(start, job.state())
    assert last.perceptual < 0.8 * first.perceptual
    assert last.total < first.total
    before = engine.judge(start, engine.open(start, Options()).state())
    after = engine.judge(start, job.state())
    assert after.stlpips_alex < before.stlpips_alex
    assert after.face
    assert after.identity is not None
    assert after.landmarks is not None
    assert -1 <= after.identity <= 1
    assert engine.preview(job.state()).shape == (256, 256, 3)


def test_a_job_ends_at_its_target_distance_and_its_budget(engine: TorchEngine, start: Start) -> None:
    near = engine.open(left(start), Options(steps=50, target=9.0))
    engine.run([near], 5)
    assert (near.reason, near.state().step) == ("target", 1)
    # The distance of coarse images is another one: steps 0 and 1 of 4 are coarse.
    coarse = engine.open(start, Options(steps=4, target=9.0))
    engine.run([coarse], 4)
    assert (coarse.reason, coarse.state().step) == ("target", 3)
    short = engine.open(start, Options(steps=50, seconds=1e-3))
    engine.run([short], 5)
    assert (short.reason, short.state().step) == ("seconds", 1)
    assert short.state().seconds > 0


def test_a_diverging_job_ends_with_its_last_finite_state(engine: TorchEngine, start: Start) -> None:
    lost = engine.open(replace(start, f=start.f * np.float32(1e30)), Options(steps=3))
    fine = engine.open(start, Options(steps=1))
    engine.run([lost, fine], 1)
    assert (lost.reason, lost.state().step) == ("diverged", 0)
    assert np.isfinite(lost.state().f).all()
    assert (fine.reason, fine.state().step) == ("steps", 1)


def broken(start: Start, name: str, value: Any) -> Start:
    array = getattr(start, name).copy()
    if isinstance(value, float):
        array.flat[7] = value
    elif isinstance(value, str):
        array = array.astype(value)
    else:
        array = array[value]
    return replace(start, **{name: array})


@pytest.mark.parametrize("name", ["f", "w_m_plus", "f_o"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "float64", np.s_[:3], np.s_[..., :4]])
def test_a_start_that_does_not_fit_is_refused(engine: TorchEngine, start: Start, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=name):
        engine.open(broken(start, name, value), Options())


@pytest.mark.parametrize("value", ["float32", np.s_[:512], np.s_[:512, :512], np.s_[..., :1]])
def test_another_image_is_refused(engine: TorchEngine, start: Start, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="photo"):
        engine.open(broken(start, "target", value), Options())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step -1"),
        ({"step": 9}, "step 9, and the job has 5"),
        ({"seconds": float("nan")}, "seconds"),
        ({"f": np.full((512, 16, 16), np.nan, np.float32)}, "checkpoint's f"),
        ({"w_m_plus": np.zeros((3, 512), np.float32)}, "checkpoint's w_m_plus"),
        ({"optimiser": {"w": None}}, "must hold w"),
        ({"optimiser": {"coarse": None}}, "must hold coarse"),
        ({"optimiser": {"coarse": np.zeros(2, np.float32)}}, "coarse is float32"),
        ({"optimiser": {"extra": np.zeros(1, np.float32)}}, "must hold w"),
        ({"optimiser": {"w.exp_avg_sq": np.full((12, 512), -1, np.float32)}}, "negative"),
        ({"optimiser": {"f.exp_avg": None}}, "must hold w"),
        ({"optimiser": {"f.exp_avg": np.zeros((512, 8, 8), np.float32)}}, "f.exp_avg must be"),
        ({"optimiser": {"w": np.full((12, 512), np.inf, np.float32)}}, "checkpoint's w holds"),
    ],
)
def test_a_broken_checkpoint_is_refused(
    engine: TorchEngine, start: Start, stepped: Refinement, change: dict[str, Any], message: str
) -> None:
    options = Options(steps=5)
    state = stepped.state()
    if "optimiser" in change:
        changed = {**state.optimiser, **change["optimiser"]}
        change = {"optimiser": {name: value for name, value in changed.items() if value is not None}}
    with pytest.raises(InvalidRequest, match=message):
        engine.open(start, options, replace(state, **change))


def test_missing_weights_are_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path))
    with pytest.raises(EngineError, match="run: python -m export fetch --judges"):
        load_engine(device="cpu")


def small_engine(dtype: torch.dtype = torch.float32) -> TorchEngine:
    """A StyleGAN2 of 64 px with random weights."""
    torch.manual_seed(0)
    synthesis = StyleGAN2(Shape(channels=(24, 24, 24, 16, 12))).eval().requires_grad_(requires_grad=False)
    mapping = MappingNetwork(depth=2).eval().requires_grad_(requires_grad=False)
    return TorchEngine(
        Generator(mapping=mapping.to(dtype), synthesis=synthesis.to(dtype), fingerprint="0" * 16),
        pnorm=load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors").to(dtype), perceptual=stlpips("vgg").to(dtype),
        judge=Judge(), domain="small", device=torch.device("cpu"), compiled=False,
    )  # fmt: skip


@torch.no_grad()
def small_start(engine: TorchEngine, seed: int) -> Start:
    """A sample of the small generator, with an f that is off."""
    synthesis, w_avg = engine._synthesis, engine._w_avg
    rng = torch.Generator().manual_seed(seed)
    f = torch.randn(24, 16, 16, generator=rng)
    w = w_avg.float() + torch.randn(1, 512, generator=rng).to(w_avg.dtype)
    w_m_plus = w.expand(synthesis.fine_styles(16), -1)
    image = synthesis.fine(f[None].to(w_avg.dtype), w_m_plus[None])
    pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    off = f.numpy() + np.float32(0.3)
    return Start(target=pixels, f=off, w_m_plus=w_m_plus.numpy().astype(np.float32), f_o=f.numpy())


def test_a_small_generator_of_another_family_is_refined() -> None:
    """No coarse step at a side that it does not have, no comparison at 256 px."""
    small = small_engine()
    assert small.resolution == 64
    start = small_start(small, 1)
    job = small.open(start, Options(steps=40))
    at_f_o = replace(start, f=start.f_o)
    before = small.terms(at_f_o, job.state())
    finish(small, [job])
    after = small.terms(at_f_o, job.state())
    assert after.mse < 0.5 * before.mse
    small.warm_up()
    with pytest.raises(InvalidRequest, match=r"must be \[24, s, s\]"):
        small.open(replace(start, f=np.zeros((512, 16, 16), np.float32)), Options())


def w_plus_start(seed: int = 3) -> Start:
    """A generator sample in W+: f the constant, all styles a little off."""
    generator = load_generator("ffhq")
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        w = generator.mapping(torch.randn(1, 512, generator=rng), 0.7)[:, None].expand(1, 16, -1)
        image = generator.synthesis(w)
        pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        f = generator.synthesis.coarse(w[:, :0], cut=4)[0].numpy()
        off = (w + 0.1 * torch.randn(w.shape, generator=rng))[0].numpy()
    return Start(target=pixels, f=f, w_m_plus=off, f_o=f)


@pytest.fixture(scope="module")
def in_domain() -> Detail:
    torch.manual_seed(0)
    return Detail(cut=4, count=16).eval()


@pytest.fixture(scope="module")
def w_engine(in_domain: Detail) -> TorchEngine:
    generator = load_generator("ffhq")
    return TorchEngine(
        generator, pnorm=load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors"), perceptual=stlpips("vgg"), judge=Judge(),
        domain="ffhq", device=torch.device("cpu"), compiled=False, w_encoder=in_domain,
    )  # fmt: skip


def test_in_w_plus_all_styles_move_and_f_stays(w_engine: TorchEngine) -> None:
    start = w_plus_start()
    job = w_engine.open(start, Options(preset="im2s", steps=2))
    mean = load_generator("ffhq").mapping.w_avg.numpy()
    assert np.array_equal(job.state().w_m_plus, mean[None].repeat(16, axis=0))
    w_engine.run([job], 2)
    state = job.state()
    assert np.array_equal(state.f, start.f)
    assert (np.abs(state.w_m_plus - mean).max(axis=1) > 1e-3).all()
    assert state.terms is not None
    assert (state.terms.f, state.terms.domain) == (0, 0)


def test_idinvert_is_held_to_the_encoders_domain(w_engine: TorchEngine, in_domain: Detail) -> None:
    start = w_plus_start()
    job = w_engine.open(start, Options(preset="idinvert", steps=1))
    w_engine.run([job], 1)
    terms = job.state().terms
    assert terms is not None
    with torch.no_grad():
        w = torch.from_numpy(start.w_m_plus)[None]
        image = load_generator("ffhq").synthesis(w)
        literal = F.mse_loss(in_domain(F.interpolate(image, size=(256, 256), mode="area")), w)
    assert terms.domain == pytest.approx(float(literal), rel=0.02)  # a step may run in bfloat16
    assert terms.total == pytest.approx(20 * terms.mse + 10 * terms.perceptual + 40 * terms.domain, rel=1e-4)
    # Without the weight nothing is measured, and another group is run.
    other = w_engine.open(start, Options(preset="idinvert", steps=1, weights={"domain": 0.0}))
    assert other.group != job.group
    w_engine.run([other], 1)
    assert np.abs(other.state().w_m_plus - job.state().w_m_plus).max() > 1e-3


def test_the_domain_needs_its_encoder() -> None:
    bare = TorchEngine(
        load_generator("ffhq"), pnorm=load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors"), perceptual=stlpips("vgg"),
        judge=Judge(), domain="ffhq", device=torch.device("cpu"), compiled=False,
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="no encoder into W\\+ of ffhq"):
        bare.open(w_plus_start(), Options(preset="idinvert"))


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_p_norm_can_be_a_hard_bound(engine: TorchEngine, start: Start, preset: str) -> None:
    pnorm = load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors")
    job = engine.open(left(start), Options(preset=preset, steps=2, clip=0.01))
    engine.run([job], 2)
    state = job.state()
    v = pnorm(torch.from_numpy(state.w_m_plus))
    # Only axes that float32 can tell apart: the last ones magnify rounding.
    assert float(v[:, :256].abs().max()) <= 0.0101
    free = engine.open(left(start), Options(preset=preset, steps=2))
    engine.run([free], 2)
    assert float(pnorm(torch.from_numpy(free.state().w_m_plus))[:, :256].abs().max()) > 0.0101
