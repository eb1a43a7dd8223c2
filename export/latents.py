"""Statistics of a generator's W, for P-norm+ and the components of GANSpace."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from networks.mapping import STYLE_DIM, MappingNetwork
from networks.pnorm import SLOPE

CHUNK = 10_000


class Moments:
    """Mean and covariance of rows, summed in float64 about a fixed point near the mean."""

    def __init__(self, centre: Tensor) -> None:
        self._centre = centre.double()
        self._count = 0
        self._sum = torch.zeros(STYLE_DIM, dtype=torch.float64)
        self._outer = torch.zeros(STYLE_DIM, STYLE_DIM, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add rows, float32 [N, 512]."""
        x = rows.double() - self._centre
        self._count += len(x)
        self._sum += x.sum(dim=0)
        self._outer += x.T @ x

    def mean(self) -> Tensor:
        """float64 [512]."""
        return self._centre + self._sum / self._count

    def covariance(self) -> Tensor:
        """float64 [512, 512]."""
        mean = self._sum / self._count
        return (self._outer - self._count * mean.outer(mean)) / (self._count - 1)

    def principal(self) -> tuple[Tensor, Tensor]:
        """Variances, float64 [512], in descending order, and directions, float64 [512, 512], one per column.

        The largest entry of each direction is positive, so that a re-run gives the same signs.
        """
        variances, vectors = torch.linalg.eigh(self.covariance())
        variances, vectors = variances.flip(0), vectors.flip(1)
        largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
        return variances, vectors * largest.sign()


@dataclass(frozen=True)
class Statistics:
    """Moments of W (``w``) and of LeakyReLU_5(W) (``p``) over ``count`` samples at psi 1."""

    count: int
    w: Moments
    p: Moments


@torch.no_grad()
def statistics(mapping: MappingNetwork, *, count: int, seed: int = 0) -> Statistics:
    """Moments of ``count`` seeded latents, a multiple of 10 000, mapped at psi 1."""
    if count <= 0 or count % CHUNK:
        raise ValueError(f"invalid count {count}: expected a positive multiple of {CHUNK}")
    rng = torch.Generator().manual_seed(seed)
    w_moments = Moments(mapping.w_avg)
    p_moments = Moments(F.leaky_relu(mapping.w_avg, 1 / SLOPE))
    for _ in tqdm(range(count // CHUNK), desc="mapped samples", unit=f"x{CHUNK}", disable=None):
        w = mapping(torch.randn(CHUNK, STYLE_DIM, generator=rng))
        w_moments.add(w)
        p_moments.add(F.leaky_relu(w, 1 / SLOPE))
    return Statistics(count, w_moments, p_moments)
