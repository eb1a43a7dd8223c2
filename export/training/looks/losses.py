"""The distance between two pictures: pixels, ST-LPIPS, the face from eyes to chin, and the person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.close_ups import CORE, DLIB, EYES, FACE_NET
from networks.descriptor import Descriptor
from networks.face_net import FaceNet
from networks.perceptual import STLPIPS
from networks.precision import in_half

Pair = tuple[Tensor, Tensor, Tensor]  # pictures [B, 3, S, S], their targets, and how both were moved [B, 2, 3]
ROUGH = 128  # side of pictures that are only compared roughly
SAME = 0.25  # a person's distance below which an edit is left alone


@dataclass(frozen=True)
class Shares:
    """Weights within the image loss."""

    perceptual: float = 2.0
    core: float = 1.0
    person: float = 1.0
    eyes: float = 0.5


class Person(nn.Module):
    """Distance of the persons in two pictures, by two networks neither of which judges results.

    dlib's squared distance, where 0.36 parts persons, twice; and half of one minus the cosine of MobileFaceNet.
    """

    def __init__(self, dlib: Descriptor, face_net: FaceNet) -> None:
        super().__init__()
        self.dlib, self.face_net = dlib, face_net

    def forward(self, image: Tensor, target: Tensor, theta: Tensor) -> Tensor:
        """float32 [B].

        Args:
            image: float32 [B, 3, S, S] in [-1, 1].
            target: the same shape; gives no gradient.
            theta: float32 [B, 2, 3], how both faces were moved.
        """
        with torch.no_grad():
            there = self.dlib(DLIB(target, theta)), self.face_net(FACE_NET(target, theta))
        here = self.dlib(DLIB(image, theta)), self.face_net(FACE_NET(image, theta))
        square = (here[0].float() - there[0].float()).square().sum(dim=1)
        distance: Tensor = 2 * square + 0.5 * (1 - F.cosine_similarity(here[1].float(), there[1].float()))
        return distance


class ImageLoss:
    """Loss of pictures at 256 px.

    Args:
        perceptual: the network that compares whole pictures.
        close: the network that compares close-ups.
        person: as above.
        side: side of the pictures that ``perceptual`` compares.
        core: height and width of the face from eyes to chin.
        eye: height and width of an eye.
        shares: weights.
    """

    def __init__(
        self,
        perceptual: STLPIPS,
        close: STLPIPS,
        person: Person,
        *,
        side: int = 128,
        core: tuple[int, int] = CORE.size,
        eye: tuple[int, int] = (48, 72),
        shares: Shares = Shares(),
    ) -> None:
        self.person = person
        device = perceptual.mean.device
        self.perceptual, self.close = in_half(perceptual, device), in_half(close, device)
        self.side, self.core, self.shares = side, CORE.sized(*core), shares
        self.both_eyes = [one.sized(*eye) for one in EYES]

    def pixels(self, image: Tensor, target: Tensor) -> Tensor:
        """Square and half the absolute difference, float32 [B]."""
        error = image - target
        loss: Tensor = error.square().mean((1, 2, 3)) + 0.5 * error.abs().mean((1, 2, 3))
        return loss

    def looks(self, image: Tensor, target: Tensor) -> Tensor:
        """ST-LPIPS of the whole pictures, float32 [B]."""
        distance: Tensor = self.perceptual(reduced(image, self.side), reduced(target, self.side))
        return distance

    def rough(self, image: Tensor, target: Tensor) -> Tensor:
        """ST-LPIPS of the whole pictures at half their size, by the network for close-ups: cheap. float32 [B]."""
        distance: Tensor = self.close(reduced(image, ROUGH), reduced(target, ROUGH))
        return distance

    def closer(self, image: Tensor, target: Tensor, theta: Tensor) -> Tensor:
        """ST-LPIPS and pixels from eyes to chin, float32 [B]."""
        here, there = self.core(image, theta), self.core(target, theta)
        distance: Tensor = self.close(here, there)
        return distance + 0.5 * (here - there).abs().mean((1, 2, 3))

    def eyes(self, image: Tensor, target: Tensor, theta: Tensor) -> Tensor:
        """ST-LPIPS and pixels of both eyes, float32 [B]."""
        here, there = (torch.cat([eye(x, theta) for eye in self.both_eyes]) for x in (image, target))
        distance: Tensor = self.close(here, there) + 4 * (here - there).abs().mean((1, 2, 3))
        return distance.view(2, -1).mean(0)


def together(compare: Callable[..., Tensor], pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
    """Compare several batches in one call: fewer kernels are started, and there is one shape to compile."""
    if not pairs:
        return {}
    images, targets, thetas = (torch.cat(parts) for parts in zip(*pairs.values(), strict=True))
    sizes = [len(image) for image, _, _ in pairs.values()]
    return dict(zip(pairs, torch.split(compare(images, targets, thetas), sizes), strict=True))


def reduced(image: Tensor, side: int) -> Tensor:
    """Area average: [B, C, S, S] -> [B, C, side, side]."""
    if image.shape[-1] % side:
        return F.interpolate(image, size=side, mode="bilinear", antialias=True)
    return F.avg_pool2d(image, image.shape[-1] // side) if image.shape[-1] > side else image


def seen(photo: Tensor, painted: Tensor, mask: Tensor) -> Tensor:
    """The photo, and beyond its border what is painted there, which is not compared. All [B, ., S, S]."""
    return mask * photo + (1 - mask) * painted.detach()
