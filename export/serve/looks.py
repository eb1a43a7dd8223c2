"""Graphs of the looks and the short head: codes, coarse styles, edits that move ``f``, previews, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assets.paths import (
    coarse_look_file,
    encoder_file,
    faithful_head_file,
    faithful_looks_file,
    generator_file,
    looks_file,
    picture_head_file,
    short_head_file,
)
from export.serve.eight_bits import pictures
from export.serve.graph import EightBits, Feed, Graph, received, sent
from networks.drawn_looks import DrawnLooks
from networks.generator_file import Generator
from networks.learned_file import load_encoder
from networks.looks import PHOTO, CoarseStyles, CodeLooks
from networks.looks_file import load_coarse_styles, load_looks, load_picture_head, load_short_head
from networks.mapping import STYLE_DIM
from networks.mobilestylegan import LATE_STYLES, MobileStyleGAN
from networks.picture_head import PictureHead
from networks.short_head import SIZE, ShortHead
from networks.similarity import IDENTITY, move
from networks.synthesis import Synthesis
from protocol.roles import FAITHFUL, ROLES

CODE = (
    "export/serve/eight_bits.py",
    "export/serve/looks.py",
    "networks/back_projection.py",
    "networks/drawn_looks.py",
    "networks/encoder.py",
    "networks/looks.py",
    "networks/looks_file.py",
    "networks/picture_head.py",
    "networks/retouch.py",
    "networks/short_head.py",
    "networks/similarity.py",
    "networks/weights_file.py",
)
CODES = ("f", "w_m_plus", f"{FAITHFUL}f", f"{FAITHFUL}w_m_plus")


class StylesGraph(nn.Module):
    """The coarse styles that a face would have if it were aligned.

    image uint8 [B, 256, 256, 3], transform [B, 2, 3] -> w_coarse [B, n, 512].

    ``transform`` says where the face lies: a similarity from places in the image to places in the aligned face, both
    in [-1, 1].
    """

    def __init__(self, network: CoarseStyles) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, transform: Tensor) -> Tensor:
        """See the class."""
        w_coarse: Tensor = self.network(received(image), usable(transform))
        return w_coarse


class PreviewGraph(nn.Module):
    """f [B, C, 16, 16], w_m_plus [B, m, 512] -> image uint8 [B, 256, 256, 3], painted by the short head."""

    def __init__(self, synthesis: MobileStyleGAN, head: ShortHead) -> None:
        super().__init__()
        self.synthesis, self.head = synthesis, head

    def forward(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """See the class."""
        return sent(self.paint(f, w_m_plus))

    def paint(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """The image before it is rounded, float32 [B, 3, 256, 256]."""
        image: Tensor = self.head(self.synthesis.features(f, w_m_plus), w_m_plus[:, -LATE_STYLES:])
        return image


class PictureGraph(nn.Module):
    """Two codes of a photo to one picture: the faithful one at 256 px, with the detail of the other's render.

    f [B, C, 16, 16], w_m_plus [B, m, 512], faithful_f and faithful_w_m_plus alike -> image uint8 [B, S, S, 3].
    """

    def __init__(self, synthesis: MobileStyleGAN, head: PictureHead) -> None:
        super().__init__()
        self.synthesis, self.head = synthesis, head

    def forward(self, f: Tensor, w_m_plus: Tensor, faithful_f: Tensor, faithful_w_m_plus: Tensor) -> Tensor:
        """See the class."""
        return sent(self.paint((f, w_m_plus), (faithful_f, faithful_w_m_plus)))

    def paint(self, code: tuple[Tensor, Tensor], faithful: tuple[Tensor, Tensor]) -> Tensor:
        """The picture before it is rounded, float32 [B, 3, S, S]."""
        picture: Tensor = self.head.retouch(*self.parts(code, faithful))
        return picture

    def parts(self, code: tuple[Tensor, Tensor], faithful: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The render of a code, float32 [B, 3, S, S], and the image of the other, float32 [B, 3, 256, 256]."""
        render = self.synthesis.fine(*code)
        features, late = self.synthesis.features(*faithful), faithful[1][:, -LATE_STYLES:]
        return render, self.head(features, late, F.avg_pool2d(render, render.shape[-1] // SIZE))


class LooksGraph(nn.Module):
    """Two codes of a photo, each by two looks and their short head: one to edit, and one that shows the person best.

    image uint8 [B, 256, 256, 3] -> f [B, C, 16, 16], w_m_plus [B, m, 512], faithful_f and faithful_w_m_plus alike.
    """

    def __init__(
        self, looks: DrawnLooks, preview: PreviewGraph, faithful: CodeLooks, faithful_preview: PreviewGraph
    ) -> None:
        super().__init__()
        self.looks, self.preview = looks, preview
        self.faithful, self.faithful_preview = faithful, faithful_preview

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        return self.codes(received(image))

    def codes(self, photo: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both codes of photos, float32 [B, 3, 256, 256] in [-1, 1]."""
        return *self.looks(photo, self.preview.paint), *self.faithful(photo, self.faithful_preview.paint)


class MoveGraph(nn.Module):
    """Moves one code along a direction in all styles, once per strength.

    f [C, s, s], w_m_plus [m, 512], w_coarse [n, 512], transform [2, 3], direction [n + m, 512], strengths [K]
    -> f_batch [K, C, s, s], w_m_plus_batch [K, m, 512].

    ``f`` moves by what the direction does to the coarse half, where the face is: T(G_coarse(w_c + d) - G_coarse(w_c)).
    """

    def __init__(self, synthesis: Synthesis, *, cut: int) -> None:
        super().__init__()
        self.synthesis, self.cut = synthesis, cut

    def forward(  # noqa: PLR0917
        self, f: Tensor, w_m_plus: Tensor, w_coarse: Tensor, transform: Tensor, direction: Tensor, strengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        before = w_coarse.shape[0]
        steps = strengths[:, None, None] * direction  # [K, n + m, 512]
        plain = self.synthesis.coarse(w_coarse[None], cut=self.cut)
        edited = self.synthesis.coarse(w_coarse + steps[:, :before], cut=self.cut)
        where = usable(transform[None]).expand(strengths.shape[0], 2, 3)
        return f + move(edited - plain, where), w_m_plus + steps[:, before:]


def usable(transform: Tensor) -> Tensor:
    """The transforms [B, 2, 3], with the identity for any that no face can have.

    Sampling at places that are not finite, or far away, could read outside the image.
    """
    size = transform[:, 0, 0].square() + transform[:, 1, 0].square()
    fits = (transform.abs() <= 1e3).flatten(1).all(dim=1) & (size >= 1e-6)  # false for NaN
    return torch.where(fits[:, None, None], transform, IDENTITY.to(transform))


def moves_f(domain: str, cut: int) -> bool:
    """Whether edits of a cut move f: its coarse look is trained."""
    return coarse_look_file(domain, cut).exists()


def small(generator: Generator) -> MobileStyleGAN:
    """The generator's synthesis, which is a MobileStyleGAN where there are looks."""
    assert isinstance(generator.synthesis, MobileStyleGAN)
    return generator.synthesis


def load_looks_graph(generator: Generator, domain: str, cut: int) -> LooksGraph:
    """Both codes, by the weights that ship.

    Raises:
        WeightsError: weights are missing, or of another generator.
    """
    own, synthesis = generator.fingerprint, small(generator)
    looks, encoder = (
        load_looks(looks_file(domain, cut), generator=own),
        load_encoder(encoder_file(domain, cut), generator=own),
    )
    head = load_short_head(short_head_file(domain, cut), generator=own)
    faithful = load_looks(faithful_looks_file(domain, cut), generator=own)
    faithful_head = load_short_head(faithful_head_file(domain, cut), generator=own)
    drawn, preview = DrawnLooks(looks, encoder), PreviewGraph(synthesis, head)
    return LooksGraph(drawn, preview, faithful, PreviewGraph(synthesis, faithful_head))


def looks_graphs(domain: str, name: str, cut: int, shape: Synthesis, generator: Callable[[], Generator]) -> list[Graph]:
    """The graphs of a cut whose coarse look is trained; otherwise none. Their ``shift`` replaces the plain one.

    Args:
        domain: whose coarse look.
        name: what the names of the cut's models begin with.
        cut: side of f.
        shape: a synthesis of the generator's sizes.
        generator: loads the generator.
    """
    if not moves_f(domain, cut):
        return []
    weights, look, head = generator_file(domain), coarse_look_file(domain, cut), short_head_file(domain, cut)
    both, encoder = looks_file(domain, cut), encoder_file(domain, cut)
    faithful, faithful_head = faithful_looks_file(domain, cut), faithful_head_file(domain, cut)
    picture_head = picture_head_file(domain, cut)
    before = shape.coarse_styles(cut)
    f = torch.zeros(2, shape.f_channels(cut), cut, cut)
    w_m_plus = torch.zeros(2, shape.fine_styles(cut), STYLE_DIM)
    image = torch.zeros(2, PHOTO, PHOTO, 3, dtype=torch.uint8)
    still = IDENTITY.expand(2, 2, 3).contiguous()

    def preview() -> PreviewGraph:
        made = generator()
        return PreviewGraph(small(made), load_short_head(head, generator=made.fingerprint))

    @cache
    def seen() -> Tensor:
        return pictures(generator())

    def photos() -> list[Feed]:
        return [{"image": image[None].numpy()} for image in seen()]

    def faces() -> list[Feed]:
        return [{**photo, "transform": still[:1].numpy()} for photo in photos()]

    @torch.no_grad()
    def codes() -> list[Feed]:
        looks = load_looks_graph(generator(), domain, cut).eval()
        return [{name: part.numpy() for name, part in zip(CODES, looks(image[None]), strict=True)} for image in seen()]

    def picture() -> PictureGraph:
        made = generator()
        return PictureGraph(small(made), load_picture_head(picture_head, generator=made.fingerprint))

    return [
        Graph(
            name=f"{name}_looks",
            build=lambda: load_looks_graph(generator(), domain, cut),
            inputs={"image": image},
            outputs=CODES,
            weights=(weights, both, head, encoder, faithful, faithful_head),
            code=CODE,
            eight_bits=EightBits(weights=r"\.(first|second|encoder|head|layers\.3)\.(?!f\.)", feeds=photos),
        ),
        Graph(
            name=f"{name}_styles",
            build=lambda: StylesGraph(load_coarse_styles(look, generator=generator().fingerprint)),
            inputs={"image": image, "transform": still},
            outputs=("w_coarse",),
            weights=(weights, look),
            code=CODE,
            eight_bits=EightBits(weights=r"\blook\.", feeds=faces),
        ),
        Graph(
            name=f"{name}_preview",
            build=preview,
            inputs={"f": f, "w_m_plus": w_m_plus},
            outputs=("image",),
            weights=(weights, head),
            code=CODE,
        ),
        Graph(
            name=f"{name}_picture",
            build=picture,
            # Copies: an exporter takes one tensor for one input.
            inputs=dict(zip(CODES, (f, w_m_plus, f.clone(), w_m_plus.clone()), strict=True)),
            outputs=("image",),
            weights=(weights, picture_head),
            code=CODE,
            eight_bits=EightBits(weights=r"^head\.|layers\.3\.conv2\.pointwise", feeds=codes),
        ),
        Graph(
            name=f"{name}_shift",
            build=lambda: MoveGraph(generator().synthesis, cut=cut),
            inputs={
                "f": f[0],
                "w_m_plus": w_m_plus[0],
                "w_coarse": torch.zeros(before, STYLE_DIM),
                "transform": still[0],
                "direction": torch.zeros(before + w_m_plus.shape[1], STYLE_DIM),
                "strengths": torch.zeros(3),
            },
            outputs=("f_batch", "w_m_plus_batch"),
            weights=(weights,),
            code=CODE,
            batched=False,
            dynamic={name: {0: "strengths"} for name in ("strengths", "f_batch", "w_m_plus_batch")},
            largest=ROLES["shift"].largest,
        ),
    ]
