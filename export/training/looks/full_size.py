"""The loss at full size: crops of 256 px, compared with known ones and judged by the critic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from export.training.looks.critic import Critic
from export.training.looks.draws import Batch
from export.training.looks.losses import ImageLoss
from networks.close_ups import SAMPLE_EYES

SIDE = 256
FEATURES = (*((2 * x - 1, 2 * y - 1) for x, y in SAMPLE_EYES), (0.0, 0.3))  # eyes and mouth of an aligned face
Render = Callable[[Tensor, Tensor], Tensor]


@dataclass
class FullLoss:
    """A loss, the crops that it saw (known ones, and ours, of which the first are in the same places), its parts."""

    loss: Tensor
    crops: tuple[Tensor, Tensor]
    parts: dict[str, Tensor] = field(default_factory=dict)


class FullSize:
    """The loss of pictures at the generator's size.

    Args:
        whole: f and w_m_plus to images at full size.
        loss: loss of pictures.
        critic: critic of crops; None for no critic.
        weight: weight of the critic.
    """

    def __init__(self, *, whole: Render, loss: ImageLoss, critic: Critic | None, weight: float) -> None:
        self.whole, self.loss, self.critic, self.weight = whole, loss, critic, weight

    def one(self, batch: Batch, f: Tensor, w: Tensor, number: int, rng: torch.Generator) -> FullLoss:
        """One photo of a batch through the whole fine half, with its gradient.

        Args:
            batch: see :class:`export.training.looks.draws.Batch`.
            f: float32 [B, C, cut, cut], codes of its photos.
            w: float32 [B, m, 512], their styles.
            number: which of them.
            rng: places the crops.
        """
        numbers = slice(number, number + 1)
        big = self.whole(f[numbers], w[numbers])
        known = batch.big[: batch.samples][numbers]  # none for a photo
        return self._crops(known, big, batch.places[numbers], rng)

    def all(self, batch: Batch, big: Tensor, kept: int, rng: torch.Generator) -> FullLoss:
        """Everything: ``big`` holds the photos' renders, then those of the samples' edits and of ``kept`` photos'."""
        n, count = batch.samples, len(batch.theta)
        # Samples, their edits, photos, and some of their edits: what is known comes first.
        order = [*range(n), *range(count, count + n), *range(n, count), *range(count + n, count + n + kept)]
        places = batch.places[[*range(n), *range(n), *range(n, count), *range(n, n + kept)]]
        return self._crops(batch.big, big[order], places, rng)

    def _crops(self, known: Tensor, ours: Tensor, places: Tensor, rng: torch.Generator) -> FullLoss:
        """The loss of crops; the first of ``ours`` [N, 3, S, S] are compared with ``known`` [M, 3, S, S]."""
        corners = [place_crop(one, ours.shape[-1], rng) for one in places]
        known, ours = crop(known, corners), crop(ours, corners)
        result = FullLoss(torch.zeros((), device=ours.device), (known, ours))
        if len(known):
            first = ours[: len(known)]
            result.parts["full"] = 0.5 * (first - known).abs().mean((1, 2, 3)) + self.loss.close(first, known)
            result.loss = result.loss + result.parts["full"].mean()
        if self.critic is not None:
            result.parts["fooled"] = -self.critic(ours).mean()
            result.loss = result.loss + self.weight * result.parts["fooled"]
        return result


def place_crop(theta: Tensor, size: int, rng: torch.Generator) -> tuple[int, int]:
    """Row and column of a crop in or about the face that lies as ``theta`` [2, 3] says, in an image of ``size`` px.

    Half of them are about an eye or the mouth.
    """
    place = torch.rand(2, generator=rng) * 2 - 1
    which, closer = torch.rand(2, generator=rng).tolist()
    place = torch.tensor(FEATURES[int(which * len(FEATURES))]) + 0.1 * place if closer < 0.5 else 0.6 * place
    # A place of the aligned face, where it lies in the photo.
    back = torch.linalg.inv(theta[:, :2]) @ (place.to(theta) - theta[:, 2])
    column, row = ((back + 1) / 2 * size - SIDE / 2).clamp(0, size - SIDE).long().tolist()
    return row, column


def crop(images: Tensor, places: list[tuple[int, int]]) -> Tensor:
    """One crop of each image [N, 3, S, S], in the first N places: [N, 3, 256, 256]."""
    cut = [image[:, y : y + SIDE, x : x + SIDE] for image, (y, x) in zip(images, places, strict=False)]
    return torch.stack(cut) if cut else images[:, :, :SIDE, :SIDE]
