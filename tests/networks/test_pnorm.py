"""P-norm+: the transform, and the shipped statistics against the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from assets.paths import LEARNED, generator_file
from export.latents import CHUNK, Moments, statistics
from networks.mapping import MappingNetwork
from networks.pnorm import PNorm, load_pnorm

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "pnorm"
SHIPPED = LEARNED / "ffhq" / "pnorm.safetensors"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="no published statistics beside the checkout")


@pytest.fixture(scope="module")
def pnorm() -> PNorm:
    return load_pnorm(SHIPPED)


def reference(name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(PUBLISHED / f"{name}.npy"))


def test_moments_are_those_of_all_rows() -> None:
    rows = torch.randn(300, 512, generator=torch.Generator().manual_seed(0)) + 3
    rows[:, 0] *= 9
    moments = Moments(torch.full((512,), 2.5))
    moments.add(rows[:100])
    moments.add(rows[100:])
    variances, vectors = moments.principal()
    torch.testing.assert_close(moments.mean(), rows.double().mean(dim=0))
    torch.testing.assert_close((vectors * variances) @ vectors.T, torch.cov(rows.double().T))
    assert variances.diff().max() <= 0
    assert vectors[0, 0] > 0.99


def test_statistics_refuse_a_count_that_is_no_multiple() -> None:
    with pytest.raises(ValueError, match="multiple of 10000"):
        statistics(MappingNetwork(), count=CHUNK + 1)


def test_inverse_undoes_forward(pnorm: PNorm) -> None:
    w = torch.randn(4, 12, 512, generator=torch.Generator().manual_seed(1))
    back = pnorm.inverse(pnorm(w))
    assert back.shape == w.shape
    torch.testing.assert_close(back, w, atol=2e-5, rtol=1e-4)


def test_transform_follows_the_definition(pnorm: PNorm) -> None:
    w = torch.randn(512, generator=torch.Generator().manual_seed(2)).double()
    p = torch.where(w > 0, w, 5 * w)
    values = pnorm.eigenvalues.double()
    expected = torch.diag(values**-0.5) @ pnorm.eigenvectors.double().T @ (p - pnorm.mean.double())
    torch.testing.assert_close(pnorm(w.float())[:400].double(), expected[:400], atol=1e-3, rtol=1e-4)


def test_shipped_axes_are_orthonormal_and_sorted(pnorm: PNorm) -> None:
    torch.testing.assert_close(pnorm.eigenvectors.T @ pnorm.eigenvectors, torch.eye(512), atol=1e-5, rtol=0)
    assert pnorm.eigenvalues.min() > 0
    assert pnorm.eigenvalues.diff().max() <= 0


@pytest.mark.skipif(not generator_file("ffhq").exists(), reason="the generator is not fetched")
def test_new_samples_are_white() -> None:
    from export.generator import load_generator

    generator = load_generator("ffhq")
    with safe_open(SHIPPED, framework="pt") as file:
        assert file.metadata()["generator"] == generator.fingerprint
        w_avg = file.get_tensor("w_avg")
    z = torch.randn(4000, 512, generator=torch.Generator().manual_seed(12345))
    v = load_pnorm(SHIPPED)(generator.mapping(z))
    assert v.mean(dim=0).abs().max() < 0.08  # five standard errors
    assert (v.var(dim=0) - 1).abs().mean() < 0.05
    assert (w_avg - generator.mapping.w_avg).norm() < 0.06


@published
def test_mean_and_variances_match_the_published(pnorm: PNorm) -> None:
    mean = reference("mean_latent")
    assert torch.corrcoef(torch.stack([mean, pnorm.mean]))[0, 1] > 0.9998
    variances = reference("eigen_values").sort(descending=True).values
    ratio = (pnorm.eigenvalues / variances)[:500]
    assert (ratio - 1).abs().max() < 0.05


@published
def test_published_axes_are_white_too(pnorm: PNorm) -> None:
    # Axes of near-equal variance may rotate among themselves: compare the covariance they stand for.
    ours = (pnorm.eigenvectors * pnorm.eigenvalues) @ pnorm.eigenvectors.T
    theirs = (reference("eigen_vectors") * reference("eigen_values")) @ reference("eigen_vectors").T
    assert (ours - theirs).norm() / theirs.norm() < 0.03
