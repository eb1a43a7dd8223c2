"""Linear boundaries in W, as InterfaceGAN (Shen et al., CVPR 2020) finds semantic directions.

InterfaceGAN fits a linear SVM to the extremes of a score; its normal is the direction. Here the normal comes from a
ridge regression on all scores, which uses every sample and needs a tenth as many. Entanglement between scores is
taken out before the fit: the other scores, weighted by least squares, are subtracted from each score. InterfaceGAN's
own way, to project the finished directions off each other, is the same idea after the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FOLDS = 5
TOLERANCE = 0.03  # loss of correlation, as a share of the best, allowed for a stronger penalty
EXTREME = 0.2  # share of samples at either end of a score, for the accuracy


@dataclass(frozen=True)
class Boundary:
    """A fitted direction, and its cross-validated quality.

    Attributes:
        direction: float64 [512], of unit length, along which the score grows.
        ridge: the penalty, in units of the mean variance of W.
        correlation: Pearson's, of projections and scores.
        accuracy: share of the samples with the 20 % highest and lowest scores that lie on their side.
    """

    direction: Tensor
    ridge: float
    correlation: float
    accuracy: float


def independent(scores: Tensor) -> Tensor:
    """Each score without what the others explain: float64 [N, K] -> [N, K].

    Scores enter by rank, as normal quantiles: an outlier (landmarks of a profile) then weighs no more than its rank.
    """
    ranks = scores.argsort(dim=0).argsort(dim=0).double()
    y = torch.special.ndtri((ranks + 0.5) / len(ranks))
    out = torch.empty_like(y)
    for k in range(y.shape[1]):
        others = torch.cat([y[:, :k], y[:, k + 1 :]], dim=1)
        out[:, k] = y[:, k] - others @ torch.linalg.lstsq(others, y[:, k, None]).solution[:, 0]
    return out


def fit(w: Tensor, score: Tensor) -> Boundary:
    """Fit a boundary.

    The penalty is the strongest whose cross-validated correlation is within 3 % of the best: a stronger penalty turns
    the direction towards where W varies, away from directions that no sample goes, and 3 % are a fair price for it.

    Args:
        w: float [N, 512], N at least 100.
        score: float [N].
    """
    assert w.ndim == 2
    assert score.shape == w.shape[:1]
    assert len(w) >= 100
    x, y = w.double(), score.double()
    x, y = x - x.mean(dim=0), y - y.mean()
    ridges = torch.logspace(-2, 2, 17, dtype=torch.float64)
    folds = torch.arange(len(x)) % FOLDS
    held_out = torch.empty(len(ridges), len(x), dtype=torch.float64)
    for fold in range(FOLDS):
        inside = folds != fold
        held_out[:, ~inside] = _ridge(x[inside], y[inside], ridges) @ x[~inside].T
    correlations = torch.stack([_correlation(projection, y) for projection in held_out])
    best = correlations.max()
    chosen = int((correlations >= best - TOLERANCE * best.abs()).nonzero()[-1])
    direction = _ridge(x, y, ridges[chosen : chosen + 1])[0]
    return Boundary(
        direction=direction / direction.norm(),
        ridge=float(ridges[chosen]),
        correlation=float(correlations[chosen]),
        accuracy=_accuracy(held_out[chosen], y),
    )


def _ridge(x: Tensor, y: Tensor, ridges: Tensor) -> Tensor:
    """Coefficients [R, 512] of ridge regressions on centred rows."""
    variances: Tensor
    axes: Tensor
    variances, axes = torch.linalg.eigh(x.T @ x / len(x))
    along = axes.T @ (x.T @ y / len(x))
    coefficients = along / (variances + ridges[:, None] * variances.mean())
    return coefficients @ axes.T


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([a, b]))[0, 1]


def _accuracy(projection: Tensor, score: Tensor) -> float:
    count = int(EXTREME * len(score))
    order = score.argsort()
    low, high = projection[order[:count]], projection[order[-count:]]
    middle = (low.median() + high.median()) / 2
    return float(((high > middle).double().mean() + (low < middle).double().mean()) / 2)
