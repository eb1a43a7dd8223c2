"""The methods of inversion, as data: where each starts, in which space, and by which recipe it goes on.

| method | is |
|---|---|
| ``bdinvert`` | Kang et al., ICCV 2021 (arXiv 2108.08998): F/W+ from an encoder's f^o, held to it and to P-norm+ |
| ``im2s`` | Image2StyleGAN, Abdal et al., ICCV 2019 (arXiv 1904.03189): W+ from the mean, without a regulariser |
| ``idinvert`` | Zhu et al., ECCV 2020 (arXiv 2004.00049): W+ from an encoder, held to that encoder's domain |
| ``psp`` | Richardson et al., CVPR 2021 (arXiv 2008.00951): W+ by an encoder, as it is |

W+ is F/W+ cut before the first layer: f is then the generator's constant, of side 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Space = Literal["F/W+", "W+"]
CUTS: Final = (8, 16)
W_PLUS: Final = 4
DEFAULT_CUT: Final = 16
DEFAULT: Final = "bdinvert"
DEFAULT_PRESET: Final = "default"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to invert.

    Attributes:
        space: of the code.
        start: what the styles are at first: an encoder's, or the mean of W.
        preset: recipe of the refinement; None leaves the start as it is.
    """

    space: Space
    start: Literal["encoder", "mean"]
    preset: str | None


METHODS: Final[Mapping[str, Method]] = {
    "bdinvert": Method(space="F/W+", start="encoder", preset="default"),
    "im2s": Method(space="W+", start="mean", preset="im2s"),
    "idinvert": Method(space="W+", start="encoder", preset="idinvert"),
    "psp": Method(space="W+", start="encoder", preset=None),
}
# Recipes of the side-car, and the space that each refines.
PRESETS: Final[Mapping[str, Space]] = {"default": "F/W+", "paper": "F/W+", "im2s": "W+", "idinvert": "W+"}


def space_of(cut: int) -> Space:
    """The space of codes whose f has this side."""
    return "W+" if cut == W_PLUS else "F/W+"


def prefix(domain: str, cut: int) -> str:
    """What the served models of a domain and a cut are called before their role: ``ffhq``, or ``ffhq_cut8``."""
    return domain if cut == DEFAULT_CUT else f"{domain}_cut{cut}"
