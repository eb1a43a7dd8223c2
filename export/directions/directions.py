"""P-norm+ statistics and directions of W: ``python -m export directions``.

From 1 000 000 mapped latents come the P-norm+ statistics and GANSpace's components (Härkönen et al., NeurIPS 2020).
From unmixed samples come age, smile, yaw and gender: every image is scored (`scorers`), and the gradients of the scores
are fitted (`boundary`). A direction is the step that changes its score alone and costs least (`cost`). Both ends of
each are then rendered and scored for its scale and its card. Everything is small and kept in git beside its card.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from assets.paths import DIRECTIONS, LEARNED, samples_folder
from client.change.yaw import FILE as TURNING
from client.wire.defaults import DEFAULT_DOMAIN
from export.directions.boundary import Boundary, cheapest, fit, ranked
from export.directions.cards import Card, write_direction, write_pnorm, write_turning
from export.directions.cost import cost
from export.directions.effects import effect, effects
from export.directions.scorers import Scorer, Scores
from export.directions.turning import SAMPLES as TURNED
from export.directions.turning import turned_samples, turning
from export.generator import load_generator
from export.latents import Statistics, statistics
from export.samples import SHARD, render, shards
from networks.generator_file import Generator

MAPPED = 1_000_000
COMPONENTS = 10
CORRECTIONS = 3  # of the scale of a direction
METHOD = "the step that changes its score alone and costs least"
DEVIATION = "one standard deviation of W along it"
FEATURES, GAIN = 0.25, 1.9  # of what a mouth and cheeks show; measured on photos, see docs/editing.md
TURN_GAIN = 1.3  # the pixels of a photo show less of a turn than they are moved by
LEAST = 500  # samples with a face
SPLIT = "unmixed"
SCORES = tuple(field.name for field in fields(Scores))


class DirectionsError(ValueError):
    """Too few samples show a face."""


@dataclass(frozen=True)
class Attribute:
    """A direction that changes a score.

    Attributes:
        name: of the direction.
        score: of ``SCORES``.
        description: what it does.
        unit: change of the score at strength 1.
        measure: what the unit counts.
        keeps: share of the cost that is what happens to the person and to what lies around the face; the rest is how
            unlikely the step is in W. A head that turns is another person to any descriptor, so yaw keeps nothing.
        reach: the largest strength at which faces stay believable with f kept.
        turns: whether heads turn along it, by ``unit``.
        features: share of a change that eyes, brows and nose of a photo get.
        gain: by which a step is longer in a photo, which keeps a part of what it changes; see docs/editing.md.
    """

    name: str
    score: str
    description: str
    unit: float
    measure: str
    keeps: float = 0.5
    reach: float = 3.0
    turns: bool = False
    features: float = 1.0
    gain: float = 1.0


ATTRIBUTES = (
    Attribute(
        "age",
        "age",
        "older (above 0) or younger",
        10.0,
        "years",
        reach=2.0,
        features=FEATURES,
        gain=GAIN,
    ),
    Attribute(
        "smile",
        "smile",
        "a wider smile (above 0) or a narrower mouth",
        0.03,
        "eye distances of mouth width",
        reach=2.0,
        features=FEATURES,
        gain=GAIN,
    ),
    Attribute(
        "yaw",
        "yaw",
        "turns the head to the right of the image (above 0) or to the left",
        0.15,
        "eye distances of the nose's tip",
        keeps=0.0,
        reach=2.0,
        turns=True,
        gain=TURN_GAIN,
    ),
    Attribute("gender", "male", "what a classifier calls male (above 0) or female", 0.25, "of probability"),
)


def score_samples(folder: Path, scorer: Scorer, *, count: int) -> tuple[Tensor, Tensor]:
    """Score the first ``count`` shards of a folder.

    Returns:
        w: float32 [N, 512], and scores: float32 [N, 4] in the order of ``SCORES``, of the samples with a face.
    """
    latents, scores = [], []
    with tqdm(total=count, desc="scored samples", unit=f"x{SHARD}", disable=None) as progress:
        for _, shard in zip(range(count), shards(folder, SPLIT), strict=False):
            for w, image in zip(shard["w"], shard["image"], strict=True):
                if found := scorer(image.numpy()):
                    latents.append(w[0])
                    scores.append(torch.tensor(astuple(found)))
            progress.update()
    if len(latents) < LEAST:
        raise DirectionsError(f"only {len(latents)} samples in `{folder}` show a face: expected at least {LEAST}")
    return torch.stack(latents), torch.stack(scores)


def fit_scores(w: Tensor, scores: Tensor) -> dict[str, Boundary]:
    """The boundary of each of ``SCORES``, from w [N, 512] and scores [N, 4]."""
    ranks = ranked(scores)
    return {name: fit(w, ranks[:, k]) for k, name in enumerate(SCORES)}


def directions(boundaries: dict[str, Boundary], kept: Tensor, covariance: Tensor) -> dict[str, Tensor]:
    """The direction of each of ``ATTRIBUTES``, float64 [512], of unit length.

    Args:
        boundaries: of all scores.
        kept: float64 [512, 512], :func:`export.directions.cost.cost`.
        covariance: float64 [512, 512], of W.
    """
    gradients = torch.stack([boundaries[name].gradient for name in SCORES])
    unlikely = torch.linalg.inv(covariance) / len(covariance)
    found = {}
    for a in ATTRIBUTES:
        step = cheapest(gradients, a.keeps * kept + (1 - a.keeps) * unlikely)[SCORES.index(a.score)]
        found[a.name] = step / step.norm()
    return found


def scale_of(generator: Generator, scorer: Scorer, direction: Tensor, attribute: Attribute, *, faces: int) -> float:
    """How far to go along a direction, float64 [512], to change the score by ``attribute.unit``.

    It is found on rendered faces, because a fitted gradient promises too much far from the samples.

    Raises:
        DirectionsError: the score does not grow along the direction.
    """
    styles, scale = generator.synthesis.num_styles, 2.0
    for _ in range(CORRECTIONS):
        step = (direction * scale).float().expand(styles, -1)
        change = float(getattr(effect(generator, scorer, step, faces=faces), attribute.score))
        if change <= 0:
            raise DirectionsError(f"`{attribute.name}` does not raise its score: score more samples with `--shards`")
        scale *= attribute.unit / change
    return scale


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export directions``."""
    parser.add_argument("--shards", type=int, default=40, help=f"shards of {SHARD} samples to score (default: 40)")
    parser.add_argument("--faces", type=int, default=12, help="faces to measure the effects on (default: 12)")
    parser.add_argument(
        "--steps", type=int, default=300, help="samples on which to measure what a step costs (default: 300)"
    )


def run(args: argparse.Namespace) -> None:
    """Render missing samples, then compute and write everything."""
    generator = load_generator(args.domain)
    moments = statistics(generator.mapping, count=MAPPED)
    write_pnorm(LEARNED / args.domain, moments, generator=generator.fingerprint)

    samples = samples_folder(args.domain)
    render(generator, samples, split=SPLIT, shards=range(args.shards))
    scorer = Scorer()
    w, scores = score_samples(samples, scorer, count=args.shards)
    covariance = moments.w.covariance()
    kept = cost(generator, covariance, count=args.steps)
    target, styles = DIRECTIONS / args.domain, generator.synthesis.num_styles
    boundaries = fit_scores(w, scores)
    found = directions(boundaries, kept, covariance)
    for attribute in tqdm(ATTRIBUTES, desc="measured directions", disable=None):
        boundary, direction = boundaries[attribute.score], found[attribute.name]
        scale = scale_of(generator, scorer, direction, attribute, faces=args.faces)
        card = Card(
            name=attribute.name,
            description=attribute.description,
            method=METHOD
            + (
                f"; what happens to the person and around the face is {attribute.keeps:.0%} of the cost"
                if attribute.keeps
                else ""
            ),
            unit=f"{attribute.unit:g} {attribute.measure}",
            samples=len(w),
            metrics={"held-out correlation": boundary.correlation, "held-out accuracy": boundary.accuracy},
            effects=effects(generator, scorer, (direction * scale).float(), faces=args.faces),
            reach=attribute.reach,
            turns=attribute.unit if attribute.turns else 0.0,
            features=attribute.features,
            gain=attribute.gain,
        )
        if attribute.turns and args.domain == DEFAULT_DOMAIN:
            one = (direction * scale).float()
            turned = turned_samples(generator, scorer, one, unit=attribute.unit, count=TURNED)
            odd, even = turning(turned, unit=attribute.unit)
            write_turning(TURNING, odd, even, samples=TURNED, generator=generator.fingerprint)
        write_direction(target, direction, scale, card, generator=generator.fingerprint, styles=styles)
    write_components(target, moments, (w, scores), generator=generator.fingerprint, styles=styles)


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
            unit=DEVIATION,
            samples=moments.count,
            metrics=metrics,
            effects=None,
            reach=2.0,
        )
        write_direction(target, axes[:, i], float(variances[i].sqrt()), card, generator=generator, styles=styles)
