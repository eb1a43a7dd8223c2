"""Batches: generator samples with known codes and known edits, and real faces, all moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.training.looks.faces import Faces
from export.training.looks.losses import reduced
from export.training.moves import degrade, tint
from networks.generator_file import Generator
from networks.looks import PHOTO
from networks.similarity import move
from networks.synthesis import Synthesis

PSI = (0.5, 1.0)
NAMED = 0.7  # share of edits along a named direction; the others go towards another face
STRENGTH = 2.5
TOWARDS = 0.4
TINTED = 0.5  # share of photos, of samples half as many
GREY = 0.04
FOUND = 0.3  # share of samples with styles found in photos
CODES = 16  # true codes of a batch, for the critic of codes


@dataclass(frozen=True)
class Moves:
    """How faces are moved: a share freely, the others hardly.

    Attributes:
        rotation: degrees, either way.
        shift: fraction of the image, either way.
        free: share that is moved freely.
        still: fraction of rotation and shift for the others.
    """

    rotation: float = 35.0
    shift: float = 0.25
    free: float = 0.5
    still: float = 0.15


def draw_move(zooms: tuple[float, float], rng: torch.Generator, moves: Moves = Moves()) -> Tensor:
    """One similarity transform, float32 [2, 3]; a zoom above 1 shows the face larger than aligned."""
    free, angle, zoom, x, y = torch.rand(5, generator=rng).tolist()
    low, high = zooms
    if free < moves.free:
        scale, by = low * (high / low) ** zoom, 1.0
    else:
        scale, by = min(max(1.0, low), high) * math.exp(0.06 * (2 * zoom - 1)), moves.still
    angle = (2 * angle - 1) * math.radians(moves.rotation) * by
    x, y = ((2 * t - 1) * 2 * moves.shift * by for t in (x, y))
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return torch.tensor([[cos, -sin, x], [sin, cos, y]])


@dataclass
class Batch:
    """Photos, samples first, and what is known about them.

    Attributes:
        photo: float32 [B, 3, 256, 256], what the looks see.
        target: float32 [B, 3, 256, 256], what their codes should paint: of samples the same with all detail.
        mask: float32 [B, 1, 256, 256], 1 where the photo reaches.
        theta: float32 [B, 2, 3], how the aligned face was moved.
        places: the same, always on the CPU.
        edit: float32 [B, num_styles, 512], a change of all styles.
        person: bool [B], whether the edit keeps the person.
        w: float32 [n, num_styles, 512], the samples' styles.
        f: float32 [n, C, cut, cut], their f, moved.
        edited: float32 [n, 3, 256, 256], what the edit makes of them.
        big: float32 [2n, 3, S, S], samples and edits at the generator's size, moved.
        still: float32 [2n, 3, S, S], the same, not moved.
        codes: f and w_m_plus of other samples, float32 [16, C, cut, cut], moved, and [16, m, 512].
    """

    photo: Tensor
    target: Tensor
    mask: Tensor
    theta: Tensor
    places: Tensor
    edit: Tensor
    person: Tensor
    w: Tensor
    f: Tensor
    edited: Tensor
    big: Tensor
    still: Tensor
    codes: tuple[Tensor, Tensor]

    @property
    def samples(self) -> int:
        """How many of the photos are samples."""
        return len(self.w)


def draw_styles(generator: Generator, count: int, rng: torch.Generator) -> Tensor:
    """w_plus of samples, float32 [count, num_styles, 512]; half of them switch to a second latent at some layer."""
    n = generator.synthesis.num_styles
    w = generator.mapping(torch.randn(2 * count, 512, generator=rng).to(generator.mapping.w_avg.device))
    w = w.unflatten(0, (2, count))
    psi = PSI[0] + (PSI[1] - PSI[0]) * torch.rand(count, 1, 1, generator=rng)
    change = torch.randint(1, 2 * n + 1, (count, 1), generator=rng)
    second = (torch.arange(n) >= change)[:, :, None].to(w.device)
    mixed = torch.where(second, w[1][:, None], w[0][:, None])
    w_avg = generator.mapping.w_avg
    return w_avg + psi.to(w.device) * (mixed - w_avg)


def draw_edits(generator: Generator, directions: Tensor, w: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Changes of all styles, as users make them.

    Args:
        generator: whose mapping gives other faces.
        directions: float32 [D, num_styles, 512], named ones at strength 1.
        w: float32 [B, 512], where each edit starts.
        rng: a random generator on the CPU.

    Returns:
        float32 [B, num_styles, 512]; bool [B], whether it is along a named direction. Some begin at a later layer.
    """
    count, n = len(w), generator.synthesis.num_styles
    strength = (2 * torch.rand(count, 1, 1, generator=rng) - 1) * STRENGTH
    along = directions[torch.randint(len(directions), (count,), generator=rng)] * strength.to(w)
    other = generator.mapping(torch.randn(count, 512, generator=rng).to(w)) - w
    towards = other * (TOWARDS * torch.rand(count, 1, generator=rng)).to(w)
    named = torch.rand(count, generator=rng) < NAMED
    change = torch.where(named[:, None, None].to(w.device), along, towards[:, None])
    later = torch.randint(0, 10, (count, 1), generator=rng)
    first = torch.where(torch.rand(count, 1, generator=rng) < NAMED, 0, later)
    moved = (torch.arange(n) >= first).to(w)
    return change * moved[:, :, None], named.to(w.device)


def tinted(photo: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Change the light and colours of some photos, and turn a few grey: [B, 3, S, S] -> the same."""
    on = (torch.rand(len(photo), 1, 1, 1, generator=rng) < share).to(photo.device)
    grey = (torch.rand(len(photo), 1, 1, 1, generator=rng) < GREY).to(photo.device)
    other = tint(photo, rng=rng)
    other = torch.where(grey, other.mean(dim=1, keepdim=True).expand_as(other), other)
    return torch.where(on, other, photo)


class Batches:
    """Draws batches.

    Args:
        generator: on its device.
        sets: sets of real faces, each with its share.
        directions: float32 [D, num_styles, 512], named directions at strength 1.
        paint: the whole fine half: codes to images, float32 [B, 3, S, S].
        cut: side of f.

    Attributes:
        found: float32 [N, num_styles, 512], styles that were found in photos. Some samples have them: such a sample
            resembles a photo, and its code is known. None at first.
    """

    found: Tensor | None = None

    def __init__(
        self,
        generator: Generator,
        sets: Sequence[tuple[Faces, float]],
        directions: Tensor,
        paint: Callable[[Tensor, Tensor], Tensor],
        *,
        cut: int = 16,
    ) -> None:
        self.generator, self.sets, self.directions, self.paint, self.cut = generator, sets, directions, paint, cut
        self.device = generator.mapping.w_avg.device

    @property
    def synthesis(self) -> Synthesis:
        """The generator's."""
        return self.generator.synthesis

    @torch.no_grad()
    def draw(self, samples: int, photos: int, rng: torch.Generator) -> Batch:
        """Draw a batch; ``rng`` determines all of it."""
        coarse = self.synthesis.coarse_styles(self.cut)
        w = draw_styles(self.generator, samples, rng)
        if self.found is not None:
            some = torch.randperm(len(self.found), generator=rng)[: round(FOUND * samples)]
            w[: len(some)] = self.found[some.to(self.device)]
        edit, named = draw_edits(self.generator, self.directions, w[:, 0], rng)
        places = torch.stack([draw_move((0.5, 1.4), rng) for _ in range(samples)])
        theta = places.to(self.device)
        both = torch.cat([w, w + edit])
        f = self.synthesis.coarse(both[:, :coarse], cut=self.cut)
        still = self.paint(f, both[:, coarse:]).clamp(-1, 1)
        big = move(still, torch.cat([theta, theta]))
        target, edited = reduced(big, PHOTO).chunk(2)
        photo = degrade(target, rng=rng)
        mask = torch.ones_like(photo[:, :1])
        moved_f = move(f[:samples], theta)
        if photos:
            seen, reach, theirs = self.photos(photos, rng)
            places = torch.cat([places, theirs])
            w_avg = self.generator.mapping.w_avg.expand(photos, -1)
            their_edit, their_named = draw_edits(self.generator, self.directions, w_avg, rng)
            photo, target, mask = torch.cat([photo, seen]), torch.cat([target, seen]), torch.cat([mask, reach])
            edit, named = torch.cat([edit, their_edit]), torch.cat([named, their_named])
        codes = self.codes(rng)
        return Batch(
            photo, target, mask, places.to(self.device), places, edit, named, w, moved_f, edited, big, still, codes
        )

    @torch.no_grad()
    def codes(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """True codes: f, moved, float32 [16, C, cut, cut], and w_m_plus, float32 [16, m, 512]."""
        coarse = self.synthesis.coarse_styles(self.cut)
        w = draw_styles(self.generator, CODES, rng)
        theta = torch.stack([draw_move((0.5, 1.4), rng) for _ in w]).to(self.device)
        return move(self.synthesis.coarse(w[:, :coarse], cut=self.cut), theta), w[:, coarse:]

    def photos(self, count: int, rng: torch.Generator, *, heldout: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Real faces: photo [B, 3, 256, 256], mask [B, 1, 256, 256], and theta [B, 2, 3] on the CPU."""
        shares = torch.tensor([share for _, share in self.sets])
        chosen = torch.multinomial(shares, count, replacement=True, generator=rng).sort().values
        views = []
        for index, (faces, _) in enumerate(self.sets):
            some = int((chosen == index).sum())
            if not some:
                continue
            known = faces.heldout if heldout else faces.train
            numbers = known[torch.randint(len(known), (some,), generator=rng)]
            theta = torch.stack([draw_move(faces.zooms(int(n)), rng) for n in numbers])
            mirrored = torch.rand(some, generator=rng) < 0.5
            views.append((*faces.views(numbers, theta, mirrored), theta))
        mixed = torch.randperm(count, generator=rng)
        photo, mask, theta = (torch.cat(parts)[mixed.to(parts[0].device)] for parts in zip(*views, strict=True))
        return tinted(photo.to(self.device), TINTED, rng), mask.to(self.device), theta
