"""Terms that look at the face alone: how it looks from eyes to chin, and who it is.

The other terms compare whole squares, most of which is hair and background. What users see is the face, and the change
of an edit is painted by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from networks.close_ups import CORE, FACE_NET
from networks.face_net import FaceNet
from networks.perceptual import STLPIPS
from sidecar.optimise.area import reduced

if TYPE_CHECKING:
    from sidecar.optimise.recipe import Stage
    from sidecar.optimise.terms import Seen

NAMES: Final = frozenset({"close_up", "person"})
# Sides that squares are reduced to for a close-up, so that it has that many pixels: height, width.
_SIDE, _CLOSE_UP = 512, (160, 192)
_SMALL_SIDE, _SMALL_CLOSE_UP = 256, (80, 96)


@dataclass(frozen=True, eq=False)
class FaceTarget:
    """The face of a photo as the terms compare it.

    Attributes:
        theta: float32 [B, 2, 3], how the aligned face lies in the square, as for ``affine_grid``.
        close_up: float32 [B, 3, H, W], from eyes to chin, upright.
        features: of the perceptual network, five of float [B, C_i, H_i, W_i].
        descriptor: float32 [B, 512].
    """

    theta: Tensor
    close_up: Tensor
    features: tuple[Tensor, ...]
    descriptor: Tensor

    @classmethod
    def joined(cls, targets: list[FaceTarget]) -> FaceTarget:
        """Targets of one stage as a batch."""
        features = (torch.cat(maps) for maps in zip(*(target.features for target in targets), strict=True))
        return cls(
            torch.cat([target.theta for target in targets]),
            torch.cat([target.close_up for target in targets]),
            tuple(features),
            torch.cat([target.descriptor for target in targets]),
        )


class FaceTerms:
    """The networks of both terms.

    Args:
        network: compares close-ups.
        face_net: describes faces.
    """

    def __init__(self, network: STLPIPS, face_net: FaceNet) -> None:
        self.network, self.face_net = network, face_net

    @torch.no_grad()
    def target(self, pixels: Tensor, theta: Tensor, stage: Stage, *, half: bool) -> FaceTarget:
        """What the terms keep of a photo, float32 [1, 3, S, S] in [-1, 1]; ``theta`` as in :class:`FaceTarget`."""
        close_up = self.close_up(pixels, theta, stage)
        features = self.features(close_up, half=half)
        return FaceTarget(theta, close_up, tuple(features), self.descriptor(pixels, theta, half=half))

    def close_up(self, image: Tensor, theta: Tensor, stage: Stage) -> Tensor:
        """float32 [B, 3, S, S] to [B, 3, H, W]: small in coarse steps, whose images are."""
        side, size = (_SIDE, _CLOSE_UP) if stage.side is None else (_SMALL_SIDE, _SMALL_CLOSE_UP)
        return CORE.sized(*size)(reduced(image, side), theta)

    def features(self, close_up: Tensor, *, half: bool) -> list[Tensor]:
        """Of the perceptual network."""
        with torch.autocast(close_up.device.type, torch.bfloat16, enabled=half):
            return self.network.features(close_up)

    def descriptor(self, image: Tensor, theta: Tensor, *, half: bool) -> Tensor:
        """float32 [B, 3, S, S] to [B, 512], which says who it is."""
        chip = FACE_NET(reduced(image, _SMALL_SIDE), theta)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            found: Tensor = self.face_net(chip)
        return found.float()


class CloseUp:
    """ST-LPIPS of the faces from eyes to chin, plus half of their mean absolute difference."""

    name, lazy = "close_up", True

    def __init__(self, terms: FaceTerms) -> None:
        self._terms = terms

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        face = seen.target.face
        assert face is not None
        here = self._terms.close_up(seen.image, face.theta, seen.target.stage)
        distance: Tensor = self._terms.network(self._terms.features(here, half=seen.half), list(face.features))
        return distance + 0.5 * (here - face.close_up).abs().flatten(1).mean(dim=1)


class Person:
    """One minus the cosine of the descriptors of both faces, by MobileFaceNet, which judges no result."""

    name, lazy = "person", True

    def __init__(self, terms: FaceTerms) -> None:
        self._terms = terms

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        face = seen.target.face
        assert face is not None
        found = self._terms.descriptor(seen.image, face.theta, half=seen.half)
        return 1 - F.cosine_similarity(found, face.descriptor)
