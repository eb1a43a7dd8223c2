"""``Faithful``: the code that shows a photo best, where another one is edited.

A code that lies far from the generator's own can show a person well and break when it is edited. The inversion then
holds two: ``f`` and ``w_m_plus``, which edits and refinements start from, and this one. The picture shows this one,
with detail of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.errors import InversionError
from client.files import tensors
from protocol.roles import FAITHFUL

Floats = NDArray[np.float32]
_NAMES: Final = ("f", "w_m_plus")


@dataclass(frozen=True, kw_only=True, eq=False)
class Faithful:
    """A code, as :class:`client.files.inversion.Inversion` has one.

    Attributes:
        f: float32 [channels, cut, cut].
        w_m_plus: float32 [styles, 512].
    """

    f: Floats
    w_m_plus: Floats

    def check(self, what: str, *, f: tuple[int, ...], w_m_plus: tuple[int, ...]) -> None:
        """Check the tensors of ``what``, whose code to edit has these shapes.

        Raises:
            InversionError: a tensor has another shape or dtype, or is not finite.
        """
        for name, shape in (("f", f), ("w_m_plus", w_m_plus)):
            tensor = getattr(self, name)
            if wrong := tensors.fault(tensor):
                raise InversionError(f"tensor '{FAITHFUL}{name}' of {what} {wrong}")
            if tensor.shape != shape:
                raise InversionError(
                    f"tensor '{FAITHFUL}{name}' of {what} is {list(tensor.shape)}, not {list(shape)} like '{name}'"
                )

    def named(self) -> dict[str, Floats]:
        """Return the tensors by their names in a file."""
        return {f"{FAITHFUL}{name}": getattr(self, name) for name in _NAMES}

    @classmethod
    def answered(cls, answer: Mapping[str, Floats]) -> Faithful | None:
        """Return what a server's answer holds; None where it has no such code."""
        if not all(f"{FAITHFUL}{name}" in answer for name in _NAMES):
            return None
        return cls(**{name: answer[f"{FAITHFUL}{name}"] for name in _NAMES})

    @classmethod
    def found(cls, stored: Mapping[str, NDArray[np.generic]], what: str) -> Faithful | None:
        """Return what the tensors of the file ``what`` hold; None where it has neither.

        Raises:
            InversionError: one of the two is missing, or is not float32.
        """
        if not any(f"{FAITHFUL}{name}" in stored for name in _NAMES):
            return None
        named = {name: f"{FAITHFUL}{name}" for name in _NAMES}
        return cls(
            **{key: tensors.require(stored, name, what=what, error=InversionError) for key, name in named.items()}
        )
