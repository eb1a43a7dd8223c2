"""Quality of a reconstruction.

No single number is enough: ST-LPIPS accepts broken faces, and PSNR blurred ones. So identity, landmarks, and whether
a face is found at all are measured, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from assets.perceptual import stlpips
from judges.eyes import eye_likeness
from judges.faces import Face, FaceDetector, Image8
from judges.identity import Identity, identity_cosine
from networks.perceptual import STLPIPS
from networks.pixels import from_array

SMALL = 256


@dataclass(frozen=True)
class Quality:
    """One reconstruction against its target.

    Attributes:
        stlpips_vgg: ST-LPIPS at 256 px, 0 is equal.
        stlpips_alex: the same with Alex.
        psnr_256: dB, at 256 px.
        psnr: dB, at full size.
        identity: cosine of SFace embeddings; None where either image shows no face.
        landmarks: mean distance of the five landmarks in eye distances of the target; None if either image
            shows no face.
        face: whether a face is found in the reconstruction; None where the target shows none.
        eyes: likeness of the worse eye, -1 to 1, in the target's places; None where the target shows no face.
    """

    stlpips_vgg: float
    stlpips_alex: float
    psnr_256: float
    psnr: float
    identity: float | None
    landmarks: float | None
    face: float | None
    eyes: float | None = None


class Judge:
    """Compares reconstructions with targets.

    Args:
        vgg: ST-LPIPS with VGG, on the CPU, where the caller has it already; it is loaded otherwise.
        alex: the same with Alex.
    """

    def __init__(self, vgg: STLPIPS | None = None, alex: STLPIPS | None = None) -> None:
        self._vgg, self._alex = vgg or stlpips("vgg"), alex or stlpips("alex")
        self._detector, self._identity = FaceDetector(), Identity()

    def face(self, image: Image8) -> Face | None:
        """The face of a square, uint8 [S, S, 3]; None if none is found."""
        return self._detector.portrait(image)

    @torch.no_grad()
    def alex(self, a: Image8, b: Image8) -> float:
        """ST-LPIPS (Alex) of two images of one size, uint8 [S, S, 3]."""
        return float(self._alex(from_array(a), from_array(b)))

    @torch.no_grad()
    def __call__(self, target: Image8, reconstruction: Image8) -> Quality:
        """Compare two square images, uint8 RGB [S, S, 3], S a multiple of 256."""
        assert target.shape == reconstruction.shape == (len(target), len(target), 3)
        assert len(target) % SMALL == 0
        small, small_target = shrunk(reconstruction), shrunk(target)
        a, b = from_array(small), from_array(small_target)
        shown, truth = self._detector.portrait(reconstruction), self._detector.portrait(target)
        identity = landmarks = None
        if shown and truth:
            identity = identity_cosine(self._identity(reconstruction, shown), self._identity(target, truth))
            apart = np.linalg.norm(shown.landmarks - truth.landmarks, axis=1)
            landmarks = float(apart.mean()) / truth.eye_distance
        return Quality(
            stlpips_vgg=float(self._vgg(a, b)),
            stlpips_alex=float(self._alex(a, b)),
            psnr_256=psnr(small, small_target),
            psnr=psnr(reconstruction, target),
            identity=identity,
            landmarks=landmarks,
            face=None if truth is None else float(shown is not None),
            eyes=None if truth is None else eye_likeness(target, reconstruction, truth),
        )


def psnr(a: Image8, b: Image8) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images of one shape; infinite if they are equal."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def shrunk(image: Image8) -> Image8:
    """The image at 256 px, by area average; smaller ones stay."""
    return np.asarray(Image.fromarray(image).reduce(max(1, image.shape[0] // SMALL)))
