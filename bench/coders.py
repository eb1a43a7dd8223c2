"""One-pass codes of photos in plain torch: how they are made, rendered and edited, without a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from assets.paths import (
    coarse_look_file,
    detail_file,
    encoder_file,
    faithful_head_file,
    faithful_looks_file,
    looks_file,
    picture_head_file,
    short_head_file,
)
from export.serve.looks import PictureGraph, PreviewGraph, load_looks_graph
from export.training.looks.weights import read_parts, renamed, start_from
from networks.drawn_looks import DrawnLooks
from networks.generator_file import Generator
from networks.learned_file import load_detail, load_encoder
from networks.looks import CoarseStyles, CodeLooks, TwoLooks
from networks.looks_file import load_coarse_styles, load_picture_head
from networks.mobilestylegan import MobileStyleGAN
from networks.picture_head import PictureHead
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
        faithful: f and w_m_plus of what the picture shows, if those above are for edits alone.
    """

    f: Tensor
    w: Tensor
    w_coarse: Tensor | None
    theta: Tensor
    faithful: tuple[Tensor, Tensor] | None = None

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
    """Photos to codes.

    Attributes:
        name: what tables call it.
        files: the weights of its code.
    """

    name: str
    files: tuple[Path, ...]

    def __call__(self, photo: Tensor, theta: Tensor) -> Code:
        """float32 [1, 3, 256, 256] in [-1, 1], and how its face lies, [1, 2, 3] -> its code."""

    def picture(self, code: Code) -> Tensor:
        """What a code shows, float32 [1, 3, S, S]."""


class EncoderCoder:
    """The encoder and the detail head that ship, and the coarse look, by which edits move f."""

    def __init__(self, generator: Generator, *, domain: str = "ffhq") -> None:
        self.name, self.synthesis = "encoder", generator.synthesis
        files = encoder_file(domain, 16), detail_file(domain, 16)
        self.files: tuple[Path, ...] = files
        self.encoder = load_encoder(files[0], generator=generator.fingerprint)
        self.detail = load_detail(files[1], generator=generator.fingerprint)
        self.coarse = load_coarse_styles(coarse_look_file(domain, 16), generator=generator.fingerprint)

    def __call__(self, photo: Tensor, theta: Tensor) -> Code:
        """See :class:`Coder`."""
        return Code(self.encoder(F.avg_pool2d(photo, 2)), self.detail(photo), self.coarse(photo, theta), theta)

    def picture(self, code: Code) -> Tensor:
        """See :class:`Coder`."""
        return self.synthesis.fine(code.f, code.w)


class LooksCoder:
    """The two looks, which paint with a short head, and the coarse look, if there is one.

    Args:
        generator: whose codes they give.
        networks: the looks, the short head and the coarse look, in evaluation mode.
        name: what the tables call them.
        files: their weights.
        faithful: looks, their short head and the picture head, for what the pictures show, if the codes of ``networks``
            are for edits alone.
    """

    def __init__(
        self,
        generator: Generator,
        networks: tuple[CodeLooks | DrawnLooks, ShortHead, CoarseStyles | None],
        *,
        name: str,
        files: tuple[Path, ...],
        faithful: tuple[CodeLooks, ShortHead, PictureHead] | None = None,
    ) -> None:
        assert isinstance(generator.synthesis, MobileStyleGAN)
        self.name, self.files = name, files
        self.looks, head, self.coarse = networks
        self.preview = PreviewGraph(generator.synthesis, head)
        self.faithful = None
        if faithful is not None:
            looks, head, picture = faithful
            preview = PreviewGraph(generator.synthesis, head)
            self.faithful = looks, preview, PictureGraph(generator.synthesis, picture)

    @classmethod
    def of_folder(cls, generator: Generator, folder: Path) -> LooksCoder:
        """With weights as a training leaves them; the codes are the looks' own."""
        looks, head = TwoLooks(), ShortHead()
        missing = start_from(looks, renamed(read_parts(folder, "looks")), new=("coarse_look.",))
        start_from(head, renamed(read_parts(folder, "head")))
        for network in (looks, head):
            network.eval().requires_grad_(requires_grad=False)
        networks = looks, head, None if missing else CoarseStyles.of(looks)
        return cls(generator, networks, name=folder.name, files=tuple(sorted(folder.glob("*.safetensors"))))

    @classmethod
    def shipped(cls, generator: Generator, *, domain: str = "ffhq") -> LooksCoder:
        """As they are served."""
        graph, name = load_looks_graph(generator, domain, 16), generator.fingerprint
        coarse, picture = coarse_look_file(domain, 16), picture_head_file(domain, 16)
        networks = graph.looks, graph.preview.head, load_coarse_styles(coarse, generator=name)
        faithful = graph.faithful, graph.faithful_preview.head, load_picture_head(picture, generator=name)
        used = (looks_file, short_head_file, encoder_file, faithful_looks_file, faithful_head_file, picture_head_file)
        files = tuple(file(domain, 16) for file in used)
        return cls(generator, networks, name="looks", files=files, faithful=faithful)

    def __call__(self, photo: Tensor, theta: Tensor) -> Code:
        """See :class:`Coder`."""
        f, w = self.looks(photo, self.preview.paint)
        faithful = None
        if self.faithful is not None:
            looks, preview, _ = self.faithful
            faithful = looks(photo, preview.paint)
        return Code(f, w, None if self.coarse is None else self.coarse(photo, theta), theta, faithful)

    def picture(self, code: Code) -> Tensor:
        """See :class:`Coder`."""
        if self.faithful is None or code.faithful is None:
            return self.preview.synthesis.fine(code.f, code.w)
        return self.faithful[2].paint((code.f, code.w), code.faithful)


def shipped(generator: Generator, *, domain: str = "ffhq") -> list[Coder]:
    """What ships, the one that is served last."""
    found: list[Coder] = [EncoderCoder(generator, domain=domain)]
    if looks_file(domain, 16).exists():
        found.append(LooksCoder.shipped(generator, domain=domain))
    return found
