"""Edits of photos, the photo plus the change: what they keep of the person, and how far they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from assets.paths import DIRECTIONS
from bench.table import mean
from export.directions.scorers import Scorer
from export.training.looks.losses import reduced
from export.training.looks.weights import read_directions
from judges.faces import FaceDetector, Image8
from judges.identity import Identity, SecondIdentity, identity_cosine
from judges.reconstruction import Judge
from networks.generator_file import Generator
from networks.pixels import to_array

SIDE = 256
EDITS = {"age": "age", "smile": "smile", "yaw": "yaw"}  # direction, and the score that it changes
STRENGTH = 2.0
STRENGTHS = (STRENGTH, 2.8)
PERSON = 0.8  # least identity that an edit should keep


@dataclass(frozen=True)
class EditQuality:
    """An edited photo at one strength. Without a face, all but ``outside`` are None.

    Attributes:
        identity: cosine of SFace embeddings to the photo.
        second: the same of MobileFaceNet's.
        score: what the direction changes, in the result.
        landmarks: mean distance to the photo's landmarks, in eye distances.
        outside: ST-LPIPS (Alex) to the photo where the face is not.
    """

    identity: float | None
    second: float | None
    score: float | None
    landmarks: float | None
    outside: float


# The edits of a photo at one strength: of each direction, both ends.
Ends = Mapping[str, tuple[EditQuality, EditQuality]]
# The edits of samples by their own codes, at each strength.
OwnEdits = Mapping[float, Sequence[Ends]]
SHARES = (1.0, 0.7)


class EditJudge:
    """Judges edited photos.

    Args:
        judge: whose ST-LPIPS it uses.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge, self._scorer, self._detector = judge, Scorer(), FaceDetector()
        self._identity, self._second = Identity(), SecondIdentity()

    def __call__(self, direction: str, photo: Image8, edited: Image8) -> EditQuality:
        """Judge an edit along a direction of ``EDITS``; both uint8 RGB [256, 256, 3]."""
        before, after, scores = self._detector.portrait(photo), self._detector.portrait(edited), self._scorer(edited)
        outside = edited.copy()
        if before:
            left, top, width, height = before.box.astype(int).tolist()
            inside = slice(max(0, top - height // 4), max(0, top + height)), slice(max(0, left), max(0, left + width))
            outside[inside] = photo[inside]
        away = self._judge.alex(photo, outside)
        if not (before and after and scores):
            return EditQuality(None, None, None, None, away)
        first, second = (
            identity_cosine(network(edited, after), network(photo, before))
            for network in (self._identity, self._second)
        )
        apart = float(np.linalg.norm(after.landmarks - before.landmarks, axis=1).mean()) / before.eye_distance
        return EditQuality(first, second, float(getattr(scores, EDITS[direction])), apart, away)


def titles() -> list[str]:
    """Titles of :func:`cells`."""
    return [
        *(f"{name}: identity, effect" for name in EDITS),
        f"identity from {PERSON:g}", "edits with a face", "landmarks after edits", "outside",
    ]  # fmt: skip


def cells(photos: Sequence[Ends], full: Mapping[str, float]) -> list[str]:
    """Means of the edits of some photos, with counts; an effect is a share of ``full``, see :func:`full_effects`."""
    found = []
    for name in EDITS:
        pairs = [ends[name] for ends in photos]
        both = [end for pair in pairs for end in pair]
        changes = _changes(photos, name)
        first, second = (mean([getattr(end, key) for end in both], ".2f") for key in ("identity", "second"))
        found.append(f"{first} / {second}, {fmean(changes) / full[name]:.0%}" if changes else "-")
    every = [end for ends in photos for pair in ends.values() for end in pair]
    kept = sum((end.identity or 0) >= PERSON for end in every)
    found += [f"{n} of {len(every)}" for n in (kept, sum(end.identity is not None for end in every))]
    return [*found, mean([e.landmarks for e in every], ".3f"), mean([e.outside for e in every], ".3f")]


def steps(generator: Generator) -> dict[str, Tensor]:
    """Each direction at strength 1, float32 [num_styles, 512]."""
    names = sorted(p.stem for p in (DIRECTIONS / "ffhq").glob("*.safetensors"))
    found = read_directions(DIRECTIONS / "ffhq", generator.synthesis.num_styles)
    return {name: found[names.index(name)] for name in EDITS}


def latents(generator: Generator, count: int) -> Tensor:
    """w_plus of seeded samples at psi 0.7, float32 [count, num_styles, 512]."""
    rng = torch.Generator().manual_seed(3_000_000)
    w = generator.mapping(torch.randn(count, 512, generator=rng), 0.7)
    w_plus: Tensor = w[:, None].expand(-1, generator.synthesis.num_styles, -1)
    return w_plus


@torch.no_grad()
def own_edits(generator: Generator, judge: Callable[[str, Image8, Image8], EditQuality], count: int) -> OwnEdits:
    """Samples, edited by their own codes, all styles, at full strength and at less: nothing is lost to an inversion."""
    every = steps(generator)

    def draw(w: Tensor) -> Image8:
        return to_array(reduced(generator.synthesis(w[None]).clamp(-1, 1), SIDE))

    found: dict[float, list[Ends]] = {share * STRENGTH: [] for share in SHARES}
    for w in latents(generator, count):
        sample = draw(w)
        for strength, edited in found.items():
            ends = (
                (judge(name, sample, draw(w + s * step)) for s in (-strength, strength)) for name, step in every.items()
            )
            edited.append({name: (low, high) for name, (low, high) in zip(every, ends, strict=True)})
    return found


def full_effects(own: OwnEdits) -> dict[str, float]:
    """What each edit changes from end to end when all styles of a sample move: means over samples."""
    return {name: fmean(changes) for name in EDITS if (changes := _changes(own[STRENGTH], name))}


def _changes(photos: Sequence[Ends], name: str) -> list[float]:
    """What an edit changes in each photo, from end to end, where both ends show a face."""
    pairs = [ends[name] for ends in photos]
    return [b.score - a.score for a, b in pairs if a.score is not None and b.score is not None]
