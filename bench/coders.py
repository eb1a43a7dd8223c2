"""One-pass codes of photos in plain torch: how they are made, rendered and edited, without a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from assets.paths import coarse_look_file, detail_file, encoder_file
from export.training.looks.weights import read_parts, renamed, start_from
from networks.generator_file import Generator
from networks.learned_file import load_detail, load_encoder
from networks.looks import TwoLooks
from networks.looks_file import load_coarse_styles
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.short_head import ShortHead
from networks.similarity import move


@dataclass(frozen=True)
class Code:
    """A photo's code.

    Attributes:
        f: float32 [1, C, 16, 16].
        w: float32 [1, m, 512], w_m_plus.
        w_coarse: float32 [1, coarse, 512]; None if the code has none; edits then leave f.
        theta: float32 [1, 2, 3], how the aligned face lies in the photo.
    """

    f: Tensor
    w: Tensor
    w_coarse: Tensor | None
    theta: Tensor

    def edited(self, synthesis: MobileStyleGAN, step: Tensor) -> tuple[Tensor, Tensor]:
        """f and w_m_plus, moved by ``step``, float32 [num_styles, 512]."""
        count = step.shape[0] - self.w.shape[1]
        w = self.w + step[count:]
        if self.w_coarse is None:
            return self.f, w
        both = torch.cat([self.w_coarse, self.w_coarse + step[:count]])
        before, after = move(synthesis.coarse(both, cut=16), self.theta.expand(2, -1, -1)).chunk(2)
        return self.f + (after - before), w


class Coder(Protocol):
    """Photos to codes."""

    name: str

    def __call__(self, photo: Tensor, theta: Tensor) -> Code:
        """float32 [1, 3, 256, 256] in [-1, 1], and how its face lies, [1, 2, 3] -> its code."""


class EncoderCoder:
    """What ships: the encoder, the detail head, and the coarse look, by which edits move f."""

    def __init__(self, generator: Generator, *, domain: str = "ffhq") -> None:
        self.name = "encoder"
        self.encoder = load_encoder(encoder_file(domain, 16), generator=generator.fingerprint)
        self.detail = load_detail(detail_file(domain, 16), generator=generator.fingerprint)
        self.coarse = load_coarse_styles(coarse_look_file(domain, 16), generator=generator.fingerprint)

    def __call__(self, photo: Tensor, theta: Tensor) -> Code:
        """See :class:`Coder`."""
        return Code(self.encoder(F.avg_pool2d(photo, 2)), self.detail(photo), self.coarse(photo, theta), theta)


class LooksCoder:
    """The two looks with weights from a folder."""

    def __init__(self, generator: Generator, folder: Path, *, coarse: bool = True) -> None:
        assert isinstance(generator.synthesis, MobileStyleGAN)
        self.name, self.synthesis, self.with_coarse = folder.name, generator.synthesis, coarse
        self.looks, self.head = TwoLooks(), ShortHead()
        missing = start_from(self.looks, renamed(read_parts(folder, "looks")), new=("coarse_look.",))
        start_from(self.head, renamed(read_parts(folder, "head")))
        self.with_coarse = coarse and not missing
        for network in (self.looks, self.head):
            network.eval().requires_grad_(requires_grad=False)

    def __call__(self, photo: Tensor, theta: Tensor) -> Code:
        """See :class:`Coder`."""
        f, w = self.looks(photo, self._paint)
        w_coarse = self.looks.look_at_face(photo, theta) if self.with_coarse else None
        return Code(f, w, w_coarse, theta)

    def _paint(self, f: Tensor, w: Tensor) -> Tensor:
        painted: Tensor = self.head(self.synthesis.features(f, w), w[:, -LATE_STYLES:])
        return painted
