"""Where a generator is cut into two halves, and the names that follow from it.

F/W+ is cut at the feature map f of side 8 or 16. W+ is cut before the first layer: f is then the generator's constant.
"""

from __future__ import annotations

from typing import Final, Literal

Space = Literal["F/W+", "W+"]
CUTS: Final = (8, 16)  # of F/W+
W_PLUS: Final = 4  # of W+
DEFAULT_CUT: Final = 16


def space_of(cut: int) -> Space:
    """The space of codes whose f has this side."""
    return "W+" if cut == W_PLUS else "F/W+"


def prefix(domain: str, cut: int) -> str:
    """The name of a served model without its role: ``ffhq``, or ``ffhq_cut8``."""
    return domain if cut == DEFAULT_CUT else f"{domain}_cut{cut}"
