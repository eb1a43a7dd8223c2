"""What is measured: the terms of the loss, and how good a result is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from protocol.limits import ContractError, finite


@dataclass(frozen=True)
class Terms:
    """The loss and its terms, not weighted, each a mean over its elements (``Terms`` in refine.proto).

    Attributes:
        total: the weighted sum that is minimised.
        mse: mean square error of images in [-1, 1].
        perceptual: perceptual distance at 256 px, or smaller in the first, coarse steps.
        f: mean square of f - f^o.
        p_norm: mean square of P-norm+(w_M+).
        domain: mean square of w - E(G(w)), E the encoder into W+; 0 where it has no weight.
        close_up: distance of the faces from eyes to chin; 0 without a face in the photo, and where it has no weight.
        person: one minus the cosine of the faces' descriptors; 0 as above.
        eyes: distance of the eyes at full size; 0 as above.

    Raises:
        ContractError: on creation, when a term is not finite.
    """

    total: float
    mse: float
    perceptual: float
    f: float
    p_norm: float
    # A term that came later has a default: older files and servers do not name it.
    domain: float = 0.0
    close_up: float = 0.0
    person: float = 0.0
    eyes: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            finite(f"term {name}", value)


# Names of the terms that can be weighted.
TERMS: Final = tuple(field.name for field in fields(Terms) if field.name != "total")


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """How good a result is, by other measures than the loss (``Metrics`` in refine.proto).

    Attributes:
        stlpips_alex: ST-LPIPS (Alex) at 256 px; 0 is equal.
        psnr_256: peak signal-to-noise ratio at 256 px, dB.
        psnr: the same at the generator's resolution.
        identity: cosine of face embeddings, -1 to 1; None without a face in both images.
        landmarks: mean distance of five facial landmarks, in eye distances of the photo; None as above.
        face: whether a face is detected in the reconstruction; None where the photo shows none.
        eyes: correlation of the eye that looks least like the photo's, in the photo's place, -1 to 1; None as above.

    Raises:
        ContractError: on creation, when a number is not finite.
    """

    stlpips_alex: float
    psnr_256: float
    psnr: float
    identity: float | None = None
    landmarks: float | None = None
    face: bool | None = None
    # A metric that came later has a default: older files and servers do not name it.
    eyes: float | None = None

    def __post_init__(self) -> None:
        for name in ("stlpips_alex", "psnr_256", "psnr", "identity", "landmarks", "eyes"):
            value = getattr(self, name)
            if value is not None or name in {"stlpips_alex", "psnr_256", "psnr"}:
                finite(f"metric {name}", value)
        if not (self.face is None or isinstance(self.face, bool)):
            raise ContractError("invalid metric face: expected true or false")
