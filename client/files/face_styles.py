"""``FaceStyles``: what an edit needs to move ``f``.

An edit by ``d`` moves ``w_m_plus`` by ``d``, and ``f`` by what ``d`` does to the generator's coarse half, where the
face lies: ``T(G_coarse(w_coarse + d) - G_coarse(w_coarse))``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.errors import InversionError
from client.files import tensors
from client.frames.pose import PROFILE, Pose

Floats = NDArray[np.float32]
_MAX_STYLES: Final = 32
_SMALLEST, _LARGEST = 1e-3, 1e3  # sizes of a face, in sizes of the aligned one
_NAMES: Final = ("w_coarse", "transform")


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceStyles:
    """The coarse styles of a face, and where it lies.

    Attributes:
        w_coarse: float32 [n, 512], the styles before layer M that the face would have if it were aligned.
        transform: float32 [2, 3], T: from places in the inverted square to those in the aligned face, both from -1 to
            1; a similarity. The identity for an aligned square.
        yaw: how far the face is turned, as in :class:`client.frames.pose.Pose`; 0 where it is not known.
    """

    w_coarse: Floats
    transform: Floats
    yaw: float = 0.0

    @property
    def pose(self) -> Pose:
        """How the face lies in the square."""
        return Pose(self.transform, self.yaw)

    def check(self, what: str, *, dim: int) -> None:
        """Check the tensors of ``what``, whose styles have ``dim`` numbers.

        Raises:
            InversionError: a tensor has another shape or dtype, is not finite, or not a similarity transform.
        """
        expected = {"w_coarse": (len(self.w_coarse), dim), "transform": (2, 3)}
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if wrong := tensors.fault(tensor):
                raise InversionError(f"tensor '{name}' of {what} {wrong}")
            if tensor.shape != shape:
                raise InversionError(f"tensor '{name}' of {what} is {list(tensor.shape)}, not {list(shape)}")
        if not 1 <= len(self.w_coarse) <= _MAX_STYLES:
            raise InversionError(f"tensor 'w_coarse' of {what} has {len(self.w_coarse)} styles")
        (a, b), (c, d) = self.transform[:, :2].astype(float)
        size = np.hypot(a, c)
        if not (_SMALLEST <= size <= _LARGEST and max(abs(a - d), abs(b + c)) <= 1e-4 * size):
            raise InversionError(f"tensor 'transform' of {what} is not a similarity transform")
        if not abs(self.yaw) <= PROFILE:
            raise InversionError(f"the yaw of {what} is no face's: {self.yaw:g}")

    def named(self) -> dict[str, Floats]:
        """Return the tensors by their names in a request."""
        return {name: getattr(self, name) for name in _NAMES}

    def stored(self) -> dict[str, Floats]:
        """Return the tensors by their names in a file."""
        return self.named() | {"yaw": np.array([self.yaw], np.float32)}

    @classmethod
    def found(cls, stored: Mapping[str, NDArray[np.generic]], what: str) -> FaceStyles | None:
        """Return what the tensors of the file ``what`` hold; None where it has neither.

        Raises:
            InversionError: one of the two is missing, or is not float32.
        """
        if not any(name in stored for name in _NAMES):
            return None
        known = {name: tensors.require(stored, name, what=what, error=InversionError) for name in _NAMES}
        yaw = 0.0
        if "yaw" in stored:
            told = tensors.require(stored, "yaw", what=what, error=InversionError)
            if told.shape != (1,):
                raise InversionError(f"tensor 'yaw' of {what} is {list(told.shape)}, not [1]")
            yaw = float(told[0])
        return cls(w_coarse=known["w_coarse"], transform=known["transform"], yaw=yaw)
