"""The methods of inversion as data: the space, the start and the recipe of each.

| method | is |
|---|---|
| ``bdinvert`` | Kang et al., ICCV 2021 (arXiv 2108.08998): F/W+ from an encoder's f^o, held to it and to P-norm+ |
| ``im2s`` | Image2StyleGAN, Abdal et al., ICCV 2019 (arXiv 1904.03189): W+ from the mean, without regularisation |
| ``idinvert`` | Zhu et al., ECCV 2020 (arXiv 2004.00049): W+ from an encoder, held to that encoder's domain |
| ``psp`` | Richardson et al., CVPR 2021 (arXiv 2008.00951): W+ by an encoder, without refinement |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from protocol.cuts import Space

DEFAULT: Final = "bdinvert"
DEFAULT_PRESET: Final = "default"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of inversion.

    Attributes:
        space: space of the code.
        start: where the styles come from: an encoder, or the mean of W.
        preset: recipe of the refinement; None for no refinement.
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
# The side-car's recipes and the space that each refines.
PRESETS: Final[Mapping[str, Space]] = {"default": "F/W+", "paper": "F/W+", "im2s": "W+", "idinvert": "W+"}
