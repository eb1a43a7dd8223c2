"""What tells two faces apart beside `judges.reconstruction`: a second network for identity, and the skin's colour."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from skimage.color import rgb2lab

from judges.faces import Face, FaceDetector, Image8
from judges.identity import SecondIdentity, identity_cosine
from judges.reconstruction import Judge, Quality


@dataclass(frozen=True)
class Likeness(Quality):
    """Quality with a second opinion of the face.

    Attributes:
        second: cosine of MobileFaceNet's embeddings; None where either image shows no face.
        skin: distance of the mean colours inside the target's face, in Lab; None where it shows no face.
    """

    second: float | None = None
    skin: float | None = None


class LikenessJudge:
    """Compares reconstructions with targets, as `Judge`, which it asks."""

    def __init__(self) -> None:
        self.judge, self._detector, self._second = Judge(), FaceDetector(), SecondIdentity()

    def __call__(self, target: Image8, reconstruction: Image8) -> Likeness:
        """As :meth:`Judge.__call__`."""
        quality = self.judge(target, reconstruction)
        before, after = self._detector.portrait(target), self._detector.portrait(reconstruction)
        second = None
        if before and after:
            second = identity_cosine(self._second(reconstruction, after), self._second(target, before))
        skin = None if before is None else skin_distance(target, reconstruction, before)
        return Likeness(**asdict(quality), second=second, skin=skin)


def skin_distance(target: Image8, shown: Image8, face: Face) -> float:
    """Distance of the mean colours of two images [S, S, 3] inside a face, in Lab."""
    left, top, width, height = face.box.tolist()
    rows = slice(max(0, int(top + 0.2 * height)), int(top + 0.9 * height))
    box = rows, slice(max(0, int(left + 0.15 * width)), int(left + 0.85 * width))
    means = [rgb2lab(image[box]).mean(axis=(0, 1)) for image in (target, shown)]
    return float(np.linalg.norm(means[0] - means[1]))
