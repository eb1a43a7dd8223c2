"""The inversion file: one photo in F/W+, as safetensors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client import tensors
from client.errors import GeneratorMismatch, InversionError
from client.files import shown
from client.photo import Crop

SCHEMA: Final = "unaligned.inversion/1"
SUFFIX: Final = ".inversion.safetensors"
CUTS: Final = (8, 16)
CHANNELS: Final = 512
_MAX_BYTES = 64 * 2**20
_MAX_STYLES = 32
_TEXTS = ("generator", "domain", "photo_name", "photo_sha256", "method", "client_version", "server_version")


@dataclass(frozen=True, eq=False)
class Inversion:
    """``w* = (f, w_M+)`` of a photo, with where it came from.

    Attributes:
        f: float32 [512, cut, cut], the generator's feature map before layer M.
        w_m_plus: float32 [styles, 512], one style per layer from M on (12 for the 16-style generator cut at 16).
        f_o: float32 [512, cut, cut], the encoder's own estimate of ``f``, before any refinement.
        generator: fingerprint of the generator that ``f`` and ``w_m_plus`` belong to.
        domain: what the generator shows, for example ``ffhq``.
        cut: side of ``f``: 8 or 16.
        crop: the square of the photo that was inverted, in pixels of the photo as shown.
        photo_size: width and height of the photo as shown, in pixels.
        photo_sha256: hex digest of the photo file's bytes.
        photo_name: the photo file's name, without folders.
        method: how it was made; ``encoder`` is one pass without refinement.
        versions: of the ``client`` and the ``server`` that made it.

    Raises:
        InversionError: on creation, when a tensor has another shape or dtype or is not finite.
    """

    f: NDArray[np.float32]
    w_m_plus: NDArray[np.float32]
    f_o: NDArray[np.float32]
    generator: str
    domain: str
    cut: int
    crop: Crop
    photo_size: tuple[int, int]
    photo_sha256: str
    photo_name: str
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _validate(self, "the inversion")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all, replacing an existing one.

        Raises:
            OutputError: it cannot be written.
        """
        tensors.save(path, self._tensors(), self._metadata())

    def encode(self) -> bytes:
        """Return the bytes that ``save`` writes."""
        return tensors.encode(self._tensors(), self._metadata())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Inversion:
        """Read and validate a file.

        Raises:
            InversionError: it is missing, too large, truncated, not safetensors, of another schema, or incomplete.
        """
        found, metadata = tensors.load(path, limit=_MAX_BYTES, error=InversionError)
        what = shown(path)
        schema = metadata.get("schema")
        if schema is None:
            raise InversionError(f"{what} is a safetensors file, but not an inversion.")
        if schema != SCHEMA:
            raise InversionError(f"{what} has the schema '{shown(schema)}', and this version reads '{SCHEMA}'.")
        f, w_m_plus, f_o = (
            tensors.require(found, name, what=what, error=InversionError) for name in ("f", "w_m_plus", "f_o")
        )
        missing = [key for key in (*_TEXTS, "cut", "crop", "photo_size") if key not in metadata]
        if missing:
            raise InversionError(f"{what} does not say its {missing[0]}.")
        try:
            cut = int(metadata["cut"])
            x, y, size = (int(part) for part in metadata["crop"].split(","))
            width, height = (int(part) for part in metadata["photo_size"].split("x"))
        except ValueError:
            raise InversionError(f"{what} has an unreadable cut, crop or photo size.") from None
        texts = {key: shown(metadata[key]) for key in _TEXTS}
        versions = {side: texts.pop(f"{side}_version") for side in ("client", "server")}
        try:
            return cls(
                f, w_m_plus, f_o, cut=cut, crop=Crop(x, y, size), photo_size=(width, height), versions=versions, **texts
            )
        except InversionError as problem:
            raise InversionError(str(problem).replace("the inversion", what)) from None

    def require_generator(self, generator: str, *, domain: str | None = None, cut: int | None = None) -> None:
        """Refuse a generator that the inversion does not belong to.

        Raises:
            GeneratorMismatch: the fingerprint, the domain or the cut is another one.
        """
        if self.generator != generator:
            raise GeneratorMismatch(
                f"The inversion of {self.photo_name} was made with generator {self.generator}, "
                f"but the server runs generator {shown(generator)}: invert the photo again there."
            )
        if domain is not None and self.domain != domain:
            raise GeneratorMismatch(f"The inversion of {self.photo_name} is of domain {self.domain}, not {domain}.")
        if cut is not None and self.cut != cut:
            raise GeneratorMismatch(
                f"The inversion of {self.photo_name} was cut at {self.cut}x{self.cut}, "
                f"but the server cuts at {cut}x{cut}."
            )

    def _tensors(self) -> dict[str, NDArray[np.float32]]:
        return {"f": self.f, "w_m_plus": self.w_m_plus, "f_o": self.f_o}

    def _metadata(self) -> dict[str, str]:
        return {
            "schema": SCHEMA,
            "generator": self.generator,
            "domain": self.domain,
            "cut": str(self.cut),
            "crop": str(self.crop),
            "photo_size": "{}x{}".format(*self.photo_size),
            "photo_sha256": self.photo_sha256,
            "photo_name": self.photo_name,
            "method": self.method,
            "client_version": self.versions.get("client", "unknown"),
            "server_version": self.versions.get("server", "unknown"),
        }


def _validate(inversion: Inversion, what: str) -> None:
    cut = inversion.cut
    if cut not in CUTS:
        raise InversionError(f"The cut of {what} is {cut}, and must be 8 or 16.")
    for name, tensor in inversion._tensors().items():
        if tensor.dtype != np.float32:
            raise InversionError(f"Tensor '{name}' of {what} is {tensor.dtype}, not float32.")
        if not np.isfinite(tensor).all():
            raise InversionError(f"Tensor '{name}' of {what} holds numbers that are not finite.")
    for name, tensor in (("f", inversion.f), ("f_o", inversion.f_o)):
        if tensor.shape != (CHANNELS, cut, cut):
            raise InversionError(f"Tensor '{name}' of {what} is {list(tensor.shape)}, not {[CHANNELS, cut, cut]}.")
    styles = inversion.w_m_plus.shape
    if len(styles) != 2 or not 1 <= styles[0] <= _MAX_STYLES or styles[1] != CHANNELS:
        raise InversionError(f"Tensor 'w_m_plus' of {what} is {list(styles)}, not [styles, {CHANNELS}].")
    crop, (width, height) = inversion.crop, inversion.photo_size
    if min(crop.x, crop.y) < 0 or crop.size < 1 or crop.x + crop.size > width or crop.y + crop.size > height:
        raise InversionError(f"The crop {crop} of {what} does not lie within its photo of {width}x{height} pixels.")
