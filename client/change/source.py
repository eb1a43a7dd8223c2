"""The code whose change is laid over a photo.

The editable code of a photo taken in one pass lies on the photo's features, and far from the generator's own: where a
mouth or a beard is not as the generator makes them, long edits smear. The coarse styles alone make a clean face, edit
wholly, and lie beside. So the code is drawn more than half of the way to what the generator makes of them, and all of
the way where it is far from that, as of faces in the dark or half hidden. It is the code of the aligned face, whatever
square was inverted: there the generator draws best.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from client.change.filters import Floats, step
from client.files.face_styles import FaceStyles
from client.files.inversion import Inversion
from client.frames.frame import Frame
from client.limits import MIN_SIDE

_DRAWN: Final = np.float32(0.6)
_FAR: Final = (0.72, 0.78)  # distance to the generator's f, as a share of its length: from where more, and all
_FACE: Final = ((0.25, 0.88), (0.19, 0.81))  # rows and columns of an aligned face's f over which it is taken
_TO_MEAN: Final = np.float32(0.5)  # how far the styles that it is drawn to are one and the same


def frame_of(inversion: Inversion) -> Frame:
    """Return the aligned square of the inversion's face; its own square where the photo shows too little of that."""
    if inversion.face is None:
        return inversion.frame
    found = inversion.frame.of_face(inversion.face.transform)
    return found if found.side >= MIN_SIDE and found.shows(inversion.photo_size) else inversion.frame


def styles_of(inversion: Inversion, face: FaceStyles) -> tuple[Floats, Floats]:
    """Return the styles that a code is drawn to: float32 [n, 512] before layer M, and [m, 512] from there on."""
    mean = face.w_coarse.mean(axis=0)
    coarse, fine = (styles + _TO_MEAN * (mean - styles) for styles in (face.w_coarse, inversion.w_m_plus))
    return coarse, fine


def drawn(inversion: Inversion, face: FaceStyles, f: Floats) -> Inversion:
    """Return the inversion with the code whose change is laid over its photo.

    Args:
        inversion: of an aligned face.
        face: its coarse styles.
        f: what the generator's coarse half makes of the first of :func:`styles_of`, float32 [channels, cut, cut].
    """
    coarse, fine = styles_of(inversion, face)
    share = _share(inversion.f, f)
    return replace(
        inversion,
        f=inversion.f + share * (f - inversion.f),
        w_m_plus=inversion.w_m_plus + share * (fine - inversion.w_m_plus),
        face=replace(face, w_coarse=coarse),
        faithful=None,
    )


def _share(own: Floats, made: Floats) -> Floats:
    """How far a code whose f is ``own`` is drawn to the generator's ``made``, both [channels, cut, cut]: float32 []."""
    middle = (slice(None), *(slice(*(round(end * own.shape[-1]) for end in ends)) for ends in _FACE))
    away = np.linalg.norm((own - made)[middle]) / max(float(np.linalg.norm(made[middle])), 1e-9)
    more: Floats = (1 - _DRAWN) * step(np.asarray(away, np.float32), *_FAR)
    return _DRAWN + more
