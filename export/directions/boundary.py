"""Linear boundaries in W, and the steps that cross them at the least cost.

InterfaceGAN (Shen et al., CVPR 2020) fits a linear SVM to the extremes of a score; its normal is the direction. Here a
ridge regression on all scores gives the gradient of each score. It uses every sample and needs a tenth as many.

A gradient is no good direction: the shortest step across a boundary also changes the person. So a direction is the
step that changes its score, leaves the other scores as they are, and among all such steps costs least
(:func:`cheapest`). InterfaceGAN's own way with other scores, to project the finished directions off each other, is the
case in which all steps of one length cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FOLDS = 5
EXTREME = 0.2  # share of samples at either end of a score, for the accuracy


@dataclass(frozen=True)
class Boundary:
    """The gradient of a score, and its cross-validated quality.

    Attributes:
        gradient: float64 [512], change of the score per unit of W.
        ridge: the penalty, in units of the mean variance of W.
        correlation: Pearson's, of projections and scores.
        accuracy: share of the samples with the 20 % highest and lowest scores that lie on their side.
    """

    gradient: Tensor
    ridge: float
    correlation: float
    accuracy: float


def ranked(scores: Tensor) -> Tensor:
    """Scores by rank, as normal quantiles: float64 [N, K] -> [N, K]. An outlier then weighs no more than its rank."""
    ranks = scores.argsort(dim=0).argsort(dim=0).double()
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / len(ranks))
    return quantiles


def fit(w: Tensor, score: Tensor) -> Boundary:
    """Fit a boundary, with the penalty whose cross-validated correlation is best.

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
    chosen = int(correlations.argmax())
    return Boundary(
        gradient=_ridge(x, y, ridges[chosen : chosen + 1])[0],
        ridge=float(ridges[chosen]),
        correlation=float(correlations[chosen]),
        accuracy=_accuracy(held_out[chosen], y),
    )


def cheapest(gradients: Tensor, cost: Tensor) -> Tensor:
    """For each score, the step that changes it by one and no other, and of these costs least.

    Args:
        gradients: float64 [K, 512], of K scores.
        cost: float64 [512, 512], positive definite: a step d costs d' cost d.

    Returns:
        float64 [K, 512]. The least of a quadratic form under linear constraints.
    """
    across = torch.linalg.solve(cost, gradients.T)  # [512, K]
    steps: Tensor = torch.linalg.solve(gradients @ across, across.T)
    return steps


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
