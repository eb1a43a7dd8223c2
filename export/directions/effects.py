"""The effect of a direction on rendered faces, by their scores at both ends."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from export.directions.scorers import Scorer, Scores
from export.samples import at_size
from judges.faces import Image8
from networks.generator_file import Generator
from networks.pixels import to_array

STRENGTH = 2.0
PSI = 0.7


@dataclass(frozen=True)
class Effects:
    """Mean change of each score at strength 1.

    Attributes:
        full: when all styles move.
        fine: when only the styles behind a cut at 16 move, as in an edit of an inversion.
        faces: faces that it was measured on, at strengths -2 and 2.
    """

    full: Scores
    fine: Scores
    faces: int


def effects(generator: Generator, scorer: Scorer, step: Tensor, *, faces: int) -> Effects:
    """Measure a step of W, float32 [512], when all styles move and when only those behind a cut at 16 do."""
    count = generator.synthesis.num_styles
    behind = torch.arange(count) >= generator.synthesis.coarse_styles(16)
    full, fine = (
        effect(generator, scorer, step * layers[:, None], faces=faces) for layers in (torch.ones(count), behind.float())
    )
    return Effects(full, fine, faces)


@torch.no_grad()
def effect(generator: Generator, scorer: Scorer, step: Tensor, *, faces: int) -> Scores:
    """Mean change of each score at strength 1, on seeded faces at psi 0.7; ends without a face are left out.

    Args:
        generator: renders the faces.
        scorer: scores them.
        step: the step of each style, float32 [num_styles, 512].
        faces: how many.
    """
    rng = torch.Generator().manual_seed(2_000_000)
    w = generator.mapping(torch.randn(faces, step.shape[1], generator=rng), PSI)
    changes = [_change(generator, scorer, latent, step) for latent in w]
    return Scores(*torch.stack([change for change in changes if change is not None]).mean(dim=0).tolist())


def draw(generator: Generator, w_plus: Tensor) -> Image8:
    """Render one image, uint8 [256, 256, 3], from styles, float32 [num_styles, 512]."""
    return to_array(at_size(generator.synthesis(w_plus[None])))


def _change(generator: Generator, scorer: Scorer, w: Tensor, step: Tensor) -> Tensor | None:
    """Change of the scores per unit of strength, float32 [4], or None if an end shows no face."""
    low, high = (scorer(draw(generator, w + strength * step)) for strength in (-STRENGTH, STRENGTH))
    if low is None or high is None:
        return None
    return (torch.tensor(astuple(high)) - torch.tensor(astuple(low))) / (2 * STRENGTH)
