"""Metrics of reconstructions and of their edits."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict

import numpy as np
import torch
from pytorch_msssim import ms_ssim

from assets.perceptual import WeightsMissing, lpips
from bench.targets import Image8
from export.directions.scorers import Scorer
from judges.faces import Face
from judges.identity import Identity, identity_cosine
from judges.reconstruction import Judge, shrunk
from networks.pixels import from_array

# A face's box grows by this share on each side: hair, ears and neck may change with an edit.
MARGIN = 0.25
LEAST = 0.02  # smallest share of the pixels that counts as a background
Measured = dict[str, float | None]


class Measures:
    """Measures reconstructions and edits. A metric that cannot be measured is None."""

    def __init__(self) -> None:
        self._judge, self._scorer, self._identity = Judge(), Scorer(), Identity()
        self._lpips = None
        with suppress(WeightsMissing):
            self._lpips = lpips()

    @torch.no_grad()
    def reconstruction(self, target: Image8, image: Image8) -> Measured:
        """Compare an image with its target, both uint8 RGB [1024, 1024, 3].

        Returns:
            The fields of ``judges.reconstruction.Quality``, ``ms_ssim`` (at 256 px, 1 is equal) and ``lpips_vgg``.
        """
        small, small_target = (from_array(shrunk(x)) for x in (image, target))
        similarity = ms_ssim((small + 1) / 2, (small_target + 1) / 2, data_range=1.0)
        return {
            **asdict(self._judge(target, image)),
            "ms_ssim": float(similarity),
            "lpips_vgg": None if self._lpips is None else float(self._lpips(small, small_target)),
        }

    def edit(self, image: Image8, edited: Image8, strength: float) -> Measured:
        """Compare a reconstruction with its edit, both uint8 RGB [1024, 1024, 3].

        Returns:
            ``age_per_unit``: estimated years per unit of strength. ``edit_identity``: cosine of the SFace embeddings
            before and after. ``background``: mean change of the pixels outside the face, in grey levels.
        """
        before, after = self._scorer(image), self._scorer(edited)
        face, other = (self._scorer.detector.portrait(x) for x in (image, edited))
        identity = None
        if face and other:
            identity = identity_cosine(self._identity(image, face), self._identity(edited, other))
        return {
            "age_per_unit": (after.age - before.age) / strength if before and after else None,
            "edit_identity": identity,
            "background": None if face is None else background_change(image, edited, face),
        }


def background_change(image: Image8, edited: Image8, face: Face) -> float | None:
    """Mean absolute difference outside the grown box of a face, 0 to 255; None if hardly any pixel is outside."""
    left, top, width, height = face.box
    y, x = np.mgrid[: len(image), : len(image)]
    inside = (x > left - MARGIN * width) & (x < left + (1 + MARGIN) * width)
    inside &= (y > top - MARGIN * height) & (y < top + (1 + MARGIN) * height)
    if (~inside).mean() < LEAST:
        return None
    return float(np.abs(image[~inside].astype(np.float32) - edited[~inside]).mean())
