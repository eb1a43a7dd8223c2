"""P-norm+ statistics and directions of W: ``python -m export directions``.

From 1 000 000 mapped latents come the P-norm+ statistics and GANSpace's components (Härkönen et al., NeurIPS 2020).
From the samples of ``python -m export samples`` (moved ones included, because the scores ignore where a face is;
style-mixed ones left out) come age, smile, yaw and gender: every image is scored (`scorers`) and a
boundary is fitted (`boundary`). Then both ends of each direction are rendered and scored for its card.
Everything is small and kept in git beside its card.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from assets.paths import DIRECTIONS, LEARNED, samples_folder
from export.directions.boundary import Boundary, fit, independent
from export.directions.cards import Card, write_direction, write_pnorm
from export.directions.effects import Effects, effects
from export.directions.scorers import Scorer, Scores
from export.generator import load_generator
from export.latents import Statistics, statistics
from export.samples import SHARD, render, shards
from networks.generator_file import Generator

MAPPED = 1_000_000
COMPONENTS = 10
LEAST = 500  # samples with a face
SCORES = tuple(field.name for field in fields(Scores))


class DirectionsError(ValueError):
    """Too few samples show a face."""


@dataclass(frozen=True)
class Attribute:
    """A direction fitted to a score, and the largest strength at which faces stay believable with f kept."""

    name: str
    score: str
    description: str
    reach: float = 3.0


ATTRIBUTES = (
    Attribute("age", "age", "older (above 0) or younger"),
    Attribute("smile", "smile", "a wider smile (above 0) or a narrower mouth"),
    Attribute(
        "yaw",
        "yaw",
        "turns the face to the right of the image (above 0) or to the left; an inversion's f holds it back",
        reach=1.5,
    ),
    Attribute("gender", "male", "what a classifier calls male (above 0) or female"),
)


def score_samples(folder: Path, scorer: Scorer, *, count: int) -> tuple[Tensor, Tensor]:
    """Score the first ``count`` shards of a folder.

    Returns:
        w: float32 [N, 512], and scores: float32 [N, 4] in the order of ``SCORES``, of the unmixed samples with a face.
    """
    latents, scores = [], []
    with tqdm(total=count, desc="scored samples", unit=f"x{SHARD}", disable=None) as progress:
        for _, shard in zip(range(count), shards(folder, "train"), strict=False):
            for w, layers, image in zip(shard["w"], shard["layers"], shard["image"], strict=True):
                if not layers.any() and (found := scorer(image.numpy())):
                    latents.append(w[0])
                    scores.append(torch.tensor(astuple(found)))
            progress.update()
    if len(latents) < LEAST:
        raise DirectionsError(f"only {len(latents)} samples in `{folder}` show a face: expected at least {LEAST}")
    return torch.stack(latents), torch.stack(scores)


def fit_attributes(w: Tensor, scores: Tensor) -> dict[str, Boundary]:
    """A boundary for each of ``ATTRIBUTES``, from w [N, 512] and scores [N, 4]."""
    alone = independent(scores)
    return {a.name: fit(w, alone[:, SCORES.index(a.score)]) for a in ATTRIBUTES}


def scale_of(direction: Tensor, moments: Statistics) -> float:
    """One standard deviation of W along a direction."""
    variances, axes = moments.w.principal()
    return float(((axes.T @ direction).square() * variances).sum().sqrt())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export directions``."""
    parser.add_argument("--shards", type=int, default=40, help=f"shards of {SHARD} samples to score (default: 40)")
    parser.add_argument("--faces", type=int, default=12, help="faces to measure the effects on (default: 12)")


def run(args: argparse.Namespace) -> None:
    """Render missing samples, then compute and write everything."""
    generator = load_generator(args.domain)
    moments = statistics(generator.mapping, count=MAPPED)
    write_pnorm(LEARNED / args.domain, moments, generator=generator.fingerprint)

    samples = samples_folder(args.domain)
    render(generator, samples, split="train", shards=range(args.shards))
    scorer = Scorer()
    w, scores = score_samples(samples, scorer, count=args.shards)
    target = DIRECTIONS / args.domain
    _write_attributes(target, generator, moments, w, scores, scorer=scorer, faces=args.faces)
    styles = generator.synthesis.num_styles
    write_components(target, moments, (w, scores), generator=generator.fingerprint, styles=styles)


def _write_attributes(
    target: Path, generator: Generator, moments: Statistics, w: Tensor, scores: Tensor, *, scorer: Scorer, faces: int
) -> None:
    boundaries = fit_attributes(w, scores)
    for attribute in tqdm(ATTRIBUTES, desc="measured directions", disable=None):
        boundary = boundaries[attribute.name]
        scale = scale_of(boundary.direction, moments)
        step = (boundary.direction * scale).float()
        measured: Effects = effects(generator, scorer, step, faces=faces)
        card = Card(
            name=attribute.name,
            description=attribute.description,
            method=f"linear boundary (ridge {boundary.ridge:.3g}) of the score, less what the other scores explain",
            samples=len(w),
            metrics={"held-out correlation": boundary.correlation, "held-out accuracy": boundary.accuracy},
            effects=measured,
            reach=attribute.reach,
        )
        write_direction(
            target, boundary.direction, scale, card,
            generator=generator.fingerprint, styles=generator.synthesis.num_styles,
        )  # fmt: skip


def write_components(
    target: Path, moments: Statistics, scored: tuple[Tensor, Tensor] | None, *, generator: str, styles: int
) -> None:
    """Write GANSpace's first components.

    Args:
        target: folder.
        moments: moments of the generator's W.
        scored: float32 [N, 512] and [N, 4] of :func:`score_samples`, for what the components go along with.
        generator: its fingerprint.
        styles: how many it has.
    """
    variances, axes = moments.w.principal()
    for i in range(COMPONENTS):
        metrics = {"share of the variance of W": float(variances[i] / variances.sum())}
        if scored is not None:
            w, scores = scored
            along = (w.double() @ axes[:, i])[None]
            correlation = torch.corrcoef(torch.cat([along, scores.double().T]))[0, 1:]
            metrics |= {f"correlation with {k}": float(c) for k, c in zip(SCORES, correlation, strict=True)}
        card = Card(
            name=f"pca_{i:02}",
            description=f"principal component {i} of W",
            method="GANSpace: principal component analysis of mapped latents",
            samples=moments.count,
            metrics=metrics,
            effects=None,
            reach=2.0,
        )
        write_direction(target, axes[:, i], float(variances[i].sqrt()), card, generator=generator, styles=styles)
