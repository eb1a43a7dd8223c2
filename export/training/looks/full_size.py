"""The loss at full size: crops of 256 px, compared with known ones and judged by the critic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from export.training.looks.critic import Critic, mean_of
from export.training.looks.draws import Batch
from export.training.looks.losses import ImageLoss
from networks.close_ups import SAMPLE_EYES
from networks.similarity import IDENTITY

SIDE = 256
CLOSE = 0.7  # share of crops about an eye or the mouth
# Crops count where the face lies nearly as aligned: there, what is known is as sharp as the generator paints.
SCALES, TURN = (0.8, 1.25), 12.0  # scales of such a face, and degrees
FEATURES = (*((2 * x - 1, 2 * y - 1) for x, y in SAMPLE_EYES), (0.0, 0.3))  # eyes and mouth of an aligned face
Render = Callable[[Tensor, Tensor], Tensor]


@dataclass
class FullLoss:
    """A loss, and what it is made of.

    Attributes:
        loss: of crops against known ones, a scalar.
        fooled: what the critic misses, a scalar; None without a critic.
        crops: the generator's own, ours, and float32 [N], which of ours count.
        parts: for the log.
    """

    loss: Tensor
    fooled: Tensor | None
    crops: tuple[Tensor, Tensor, Tensor]
    parts: dict[str, Tensor] = field(default_factory=dict)


class FullSize:
    """The loss of pictures at the generator's size.

    Args:
        whole: f and w_m_plus to images at full size.
        loss: loss of pictures.
        critic: critic of crops; None for no critic.
    """

    def __init__(self, *, whole: Render, loss: ImageLoss, critic: Critic | None) -> None:
        self.whole, self.loss, self.critic = whole, loss, critic

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
        return self._crops(batch, known, big, batch.places[numbers], rng)

    def all(self, batch: Batch, big: Tensor, kept: int, rng: torch.Generator) -> FullLoss:
        """Everything: ``big`` holds the photos' renders, then those of the samples' edits and of ``kept`` photos'."""
        n, count = batch.samples, len(batch.theta)
        # Samples, their edits, photos, and some of their edits: what is known comes first.
        order = [*range(n), *range(count, count + n), *range(n, count), *range(count + n, count + n + kept)]
        places = batch.places[[*range(n), *range(n), *range(n, count), *range(n, n + kept)]]
        return self._crops(batch, batch.big, big[order], places, rng)

    def _crops(self, batch: Batch, known: Tensor, ours: Tensor, places: Tensor, rng: torch.Generator) -> FullLoss:
        """The loss of crops; the first of ``ours`` [N, 3, S, S] are compared with ``known`` [M, 3, S, S]."""
        corners = [place_crop(one, ours.shape[-1], rng) for one in places]
        counts = nearly_aligned(places).float().to(ours.device)
        known, ours = crop(known, corners), crop(ours, corners)
        true = crop(batch.still, [place_crop(IDENTITY, batch.still.shape[-1], rng) for _ in batch.still])
        result = FullLoss(torch.zeros((), device=ours.device), None, (true, ours, counts))
        if len(known):
            first, count = ours[: len(known)], counts[: len(known)]
            error = 0.5 * (first - known).abs().mean((1, 2, 3)) + self.loss.close(first, known)
            result.loss = result.parts["full"] = mean_of(error, count)
        if self.critic is not None:
            scores = [score.flatten(1).mean(1) for score in self.critic(ours)]
            result.fooled = result.parts["fooled"] = -mean_of(torch.stack(scores).sum(0), counts)
        return result


def nearly_aligned(places: Tensor) -> Tensor:
    """Which faces, moved by float32 [N, 2, 3], are about as large and as upright as aligned ones: bool [N]."""
    a, b = places[:, 0, 0], places[:, 1, 0]
    scale = 1 / (a * a + b * b).sqrt()
    return (scale > SCALES[0]) & (scale < SCALES[1]) & (torch.atan2(b, a).rad2deg().abs() < TURN)


def place_crop(theta: Tensor, size: int, rng: torch.Generator) -> tuple[int, int]:
    """Row and column of a crop in or about the face that lies as ``theta`` [2, 3] says, in an image of ``size`` px.

    Most of them are about an eye or the mouth.
    """
    place = torch.rand(2, generator=rng) * 2 - 1
    which, closer = torch.rand(2, generator=rng).tolist()
    place = torch.tensor(FEATURES[int(which * len(FEATURES))]) + 0.1 * place if closer < CLOSE else 0.6 * place
    # A place of the aligned face, where it lies in the photo.
    back = torch.linalg.inv(theta[:, :2]) @ (place.to(theta) - theta[:, 2])
    column, row = ((back + 1) / 2 * size - SIDE / 2).clamp(0, size - SIDE).long().tolist()
    return row, column


def crop(images: Tensor, places: list[tuple[int, int]]) -> Tensor:
    """One crop of each image [N, 3, S, S], in the first N places: [N, 3, 256, 256]."""
    cut = [image[:, y : y + SIDE, x : x + SIDE] for image, (y, x) in zip(images, places, strict=False)]
    return torch.stack(cut) if cut else images[:, :, :SIDE, :SIDE]
