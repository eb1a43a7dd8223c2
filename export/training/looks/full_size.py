"""The loss at full size: crops of 256 px against known ones and before the critic, and the short head taught along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from export.training.looks.critic import Critic
from export.training.looks.draws import Batch
from export.training.looks.losses import ImageLoss, reduced, seen
from networks.mobilestylegan import MobileStyleGAN
from networks.similarity import move

SIDE = 256
Render = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Told:
    """A loss, its parts, and the crops that it saw: known ones, and ours, of which the first are in the same places."""

    loss: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    crops: tuple[Tensor, Tensor] | None = None


class FullSize:
    """What is asked of pictures at the generator's size.

    Args:
        synthesis: for the coarse half.
        whole: f and w_m_plus to images at full size.
        paint: the same by the short head, at 256 px.
        loss: of pictures.
        critic: of crops; None is none.
        weights: of the photos' pictures at 256 px, and of the critic.

    Attributes:
        crops: whether crops of full size count.
    """

    crops = True

    def __init__(
        self,
        synthesis: MobileStyleGAN,
        *,
        whole: Render,
        paint: Render,
        loss: ImageLoss,
        critic: Critic | None,
        weights: tuple[float, float],
    ) -> None:
        self.synthesis, self.whole, self.paint, self.loss = synthesis, whole, paint, loss
        self.critic, (self.weight, self.critic_weight) = critic, weights

    def some(self, batch: Batch, f: Tensor, w: Tensor, numbers: slice, rng: torch.Generator) -> Told:
        """Some photos of a batch through the whole fine half.

        Args:
            batch: as of :class:`export.training.looks.draws.Batch`.
            f: float32 [B, C, cut, cut], codes of its photos.
            w: float32 [B, m, 512], likewise.
            numbers: which of them.
            rng: places the crops.
        """
        f, w, theta = f[numbers], w[numbers], batch.theta[numbers]
        big = self.whole(f, w)
        small = reduced(big, 256)
        target = seen(batch.photo[numbers], small, batch.mask[numbers])
        picture = self.loss.pixels(small, target) + 2 * self.loss.looks(small, target)
        told = Told(torch.zeros((), device=big.device))
        if self.crops:
            own = batch.w[numbers]  # none for a photo
            with torch.no_grad():
                known = move(self._render(own).clamp(-1, 1), theta[: len(own)]) if len(own) else big[:0]
            told = self._crops(known, big, theta, rng)
        told.parts["whole"] = picture
        told.loss = self.weight * (told.loss + picture.mean() + self.head(f, w, small, told))
        return told

    def all(self, batch: Batch, big: Tensor, rng: torch.Generator) -> Told:
        """Everything: ``big`` holds the photos' renders, then those of the samples' edits and one more."""
        if not self.crops:
            return Told(torch.zeros((), device=big.device))
        assert batch.big is not None
        n, count = batch.samples, len(batch.theta)
        both = torch.cat([batch.theta[:n], batch.theta[:n]])
        # Samples, their edits, then photos: what is known comes first.
        order = [*range(n), *range(count, count + n), *range(n, count)]
        return self._crops(move(batch.big, both), big[order], torch.cat([both, batch.theta[n:]]), rng)

    def head(self, f: Tensor, w: Tensor, small: Tensor, told: Told) -> Tensor:
        """The short head against the whole half, ``small`` [B, 3, 256, 256], on codes as they are now: a scalar."""
        error = self.paint(f.detach(), w.detach()) - small.detach()
        told.parts["head"] = error.abs().mean((1, 2, 3)) + error.square().mean((1, 2, 3))
        return told.parts["head"].mean()

    def _render(self, w_plus: Tensor) -> Tensor:
        """w_plus [B, num_styles, 512] at full size."""
        coarse = self.synthesis.coarse_styles(16)
        return self.whole(self.synthesis.coarse(w_plus[:, :coarse], cut=16), w_plus[:, coarse:])

    def _crops(self, known: Tensor, ours: Tensor, theta: Tensor, rng: torch.Generator) -> Told:
        """The loss of crops; the first of ``ours`` [N, 3, S, S] are compared with ``known`` [M, 3, S, S]."""
        places = [place_crop(one, ours.shape[-1], rng) for one in theta.cpu()]
        known, ours = crop(known, places), crop(ours, places)
        told = Told(torch.zeros((), device=ours.device), crops=(known, ours))
        if len(known):
            first = ours[: len(known)]
            told.parts["full"] = 0.5 * (first - known).abs().mean((1, 2, 3)) + self.loss.close(first, known)
            told.loss = told.loss + told.parts["full"].mean()
        if self.critic is not None:
            told.parts["fooled"] = -self.critic(ours).mean()
            told.loss = told.loss + self.critic_weight * told.parts["fooled"]
        return told


def place_crop(theta: Tensor, size: int, rng: torch.Generator, side: int = SIDE) -> tuple[int, int]:
    """Row and column of a crop in or about the face that lies as ``theta`` [2, 3] says, in an image of ``size`` px."""
    place = (torch.rand(2, generator=rng) * 1.2 - 0.6).to(theta)
    # A place of the aligned face, where it lies in the photo.
    back = torch.linalg.inv(theta[:, :2]) @ (place - theta[:, 2])
    column, row = ((back + 1) / 2 * size - side / 2).clamp(0, size - side).long().tolist()
    return row, column


def crop(images: Tensor, places: list[tuple[int, int]], side: int = SIDE) -> Tensor:
    """One crop of each image [N, 3, S, S], in the first N places: [N, 3, side, side]."""
    cut = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(images, places, strict=False)]
    return torch.stack(cut) if cut else images[:, :, :side, :side]
