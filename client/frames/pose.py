"""``Pose``: where a face lies in a frame, and how far it is turned to a side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PROFILE: Final = 1.0  # eye distances: no yaw is larger, however near the eyes come to each other


@dataclass(frozen=True, eq=False)
class Pose:
    """A face in a frame.

    Attributes:
        transform: float32 [2, 3], from places in the frame to those in the aligned face, both from -1 to 1; a
            similarity.
        yaw: offset of the nose's tip from the line between eyes and mouth, in eye distances, from -1 to 1; above 0 the
            face looks towards the right of the image. 0 where it is not known.
    """

    transform: NDArray[np.float32]
    yaw: float = 0.0
