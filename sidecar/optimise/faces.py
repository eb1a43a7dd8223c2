"""Terms that look at the face alone: how it looks from eyes to chin, who it is, and how its eyes look.

The other terms compare whole squares, most of which is hair and background. What users see is the face, and the change
of an edit is painted by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from networks.close_ups import CORE, EYES, FACE_NET
from networks.face_net import FaceNet
from networks.perceptual import STLPIPS
from sidecar.optimise.area import reduced

if TYPE_CHECKING:
    from sidecar.optimise.recipe import Stage
    from sidecar.optimise.terms import Seen

NAMES: Final = frozenset({"close_up", "person", "eyes"})
# Sides that squares are reduced to for a close-up, so that it has that many pixels: height, width.
_SIDE, _CLOSE_UP = 512, (160, 192)
_SMALL_SIDE, _SMALL_CLOSE_UP = 256, (80, 96)


@dataclass(frozen=True, eq=False)
class FaceTarget:
    """The face of a photo as the terms compare it.

    Attributes:
        theta: float32 [B, 2, 3], how the aligned face lies in the square, as for ``affine_grid``.
        close_up: float32 [B, 3, H, W], from eyes to chin, upright.
        features: features of the perceptual network, five of float [B, C_i, H_i, W_i].
        descriptor: float32 [B, 512].
        eyes: float32 [2 B, 3, H, W], the left and the right eye of each photo.
        eye_features: as ``features``, of [2 B, ...].
    """

    theta: Tensor
    close_up: Tensor
    features: tuple[Tensor, ...]
    descriptor: Tensor
    eyes: Tensor
    eye_features: tuple[Tensor, ...]

    @classmethod
    def joined(cls, targets: list[FaceTarget]) -> FaceTarget:
        """Targets of one stage as a batch."""
        return cls(
            torch.cat([target.theta for target in targets]),
            torch.cat([target.close_up for target in targets]),
            joined_features([target.features for target in targets]),
            torch.cat([target.descriptor for target in targets]),
            torch.cat([target.eyes for target in targets]),
            joined_features([target.eye_features for target in targets]),
        )


class FaceTerms:
    """The networks of the terms.

    Args:
        network: compares close-ups and eyes.
        face_net: describes faces.
    """

    def __init__(self, network: STLPIPS, face_net: FaceNet) -> None:
        self.network, self.face_net = network, face_net

    @torch.no_grad()
    def target(self, pixels: Tensor, theta: Tensor, stage: Stage, *, half: bool) -> FaceTarget:
        """What the terms keep of a photo, float32 [1, 3, S, S] in [-1, 1]; ``theta`` as in :class:`FaceTarget`."""
        close_up, eyes = self.close_up(pixels, theta, stage), self.eyes(pixels, theta)
        return FaceTarget(
            theta,
            close_up,
            tuple(self.features(close_up, half=half)),
            self.descriptor(pixels, theta, half=half),
            eyes,
            tuple(self.features(eyes, half=half)),
        )

    def close_up(self, image: Tensor, theta: Tensor, stage: Stage) -> Tensor:
        """float32 [B, 3, S, S] to [B, 3, H, W]: small in coarse steps, whose images are."""
        side, size = (_SIDE, _CLOSE_UP) if stage.side is None else (_SMALL_SIDE, _SMALL_CLOSE_UP)
        return CORE.sized(*size)(reduced(image, side), theta)

    def eyes(self, image: Tensor, theta: Tensor) -> Tensor:
        """float32 [B, 3, S, S] to [2 B, 3, H, W]: both eyes of each image, at full size in every stage."""
        return torch.stack([crop(image, theta) for crop in EYES], dim=1).flatten(0, 1)

    def features(self, picture: Tensor, *, half: bool) -> list[Tensor]:
        """Features of the perceptual network."""
        with torch.autocast(picture.device.type, torch.bfloat16, enabled=half):
            return self.network.features(picture)

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


class Eyes:
    """ST-LPIPS of the eyes at full size plus four times their mean absolute difference, a mean over both eyes.

    In the close-up an eye is a few dozen pixels: it may come out half shut, or milky.
    """

    name, lazy = "eyes", True

    def __init__(self, terms: FaceTerms) -> None:
        self._terms = terms

    def __call__(self, seen: Seen) -> Tensor:
        """float32 [B]."""
        face = seen.target.face
        assert face is not None
        here = self._terms.eyes(seen.image, face.theta)
        distance: Tensor = self._terms.network(self._terms.features(here, half=seen.half), list(face.eye_features))
        distance = distance + 4 * (here - face.eyes).abs().flatten(1).mean(dim=1)
        return distance.view(-1, 2).mean(dim=1)


def joined_features(features: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Features of a network as a batch."""
    return tuple(torch.cat(maps) for maps in zip(*features, strict=True))
