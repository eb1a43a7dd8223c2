"""The methods to compare: a method of ``protocol.methods``, at a cut if it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.methods import METHODS


@dataclass(frozen=True)
class Contender:
    """A method at a cut, with its title and line colour in the figures."""

    title: str
    method: str
    cut: int | None
    colour: str

    @property
    def preset(self) -> str | None:
        """The recipe of its refinement, if any."""
        return METHODS[self.method].preset


# Safe for colour-blind readers (Okabe and Ito).
CONTENDERS: Mapping[str, Contender] = {
    "im2s": Contender("Im2S (W+)", "im2s", None, "#E69F00"),
    "idinvert": Contender("IDinvert (W+)", "idinvert", None, "#009E73"),
    "psp": Contender("pSP (W+)", "psp", None, "#56B4E9"),
    "bdinvert8": Contender("BDInvert (F/W+ 8x8)", "bdinvert", 8, "#CC79A7"),
    "bdinvert16": Contender("BDInvert (F/W+ 16x16)", "bdinvert", 16, "#0072B2"),
}
