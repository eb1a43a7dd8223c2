"""The inversion file: one photo in F/W+, as safetensors.

The metadata say which square of which photo it is (``frame``, ``photo_size``, ``photo_sha256``). ``crop`` says the same
for older versions, where it is a square of whole pixels; files of theirs have ``crop`` alone.

Schema 1 holds ``f``, ``w_m_plus`` and ``f_o``. Schema 2 adds what a refinement leaves, each optional: the square of the
photo as the bytes of a PNG file (``target``, uint8), the tensors of the optimiser (``optimiser.NAME``, float32), and an
account of the refinement as JSON in the metadata (``refinement``). Schema 3 adds what edits need to move ``f`` and turn
heads (``w_coarse``, ``transform`` and, optional, ``yaw``, float32). Schema 4 adds the code that is rendered where
another is edited (``faithful_f`` and ``faithful_w_m_plus``, float32).
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.errors import GeneratorMismatch, InversionError, ParameterError, PhotoError
from client.files import tensors
from client.files.face_styles import FaceStyles
from client.files.faithful import Faithful
from client.files.photo import Photo
from client.files.record import Refinement
from client.frames.frame import Frame
from client.frames.pose import Pose
from client.text import quoted, shown
from protocol import cuts
from protocol.cuts import W_PLUS

SCHEMA: Final = "unaligned.inversion/1"
REFINED_SCHEMA: Final = "unaligned.inversion/2"
FACE_SCHEMA: Final = "unaligned.inversion/3"
FAITHFUL_SCHEMA: Final = "unaligned.inversion/4"
SCHEMAS: Final = (SCHEMA, REFINED_SCHEMA, FACE_SCHEMA, FAITHFUL_SCHEMA)
SUFFIX: Final = ".inversion.safetensors"
CUTS: Final = (W_PLUS, *cuts.CUTS)
STYLE_DIM: Final = 512
_MAX_CHANNELS: Final = 4096
_MAX_BYTES = 64 * 2**20
_MAX_STYLES = 32
_MIN_TARGET, _MAX_TARGET = 16, 4096
_MAX_TARGET_BYTES = 16 * 2**20
_OPTIMISER = "optimiser."
_TEXTS = ("generator", "domain", "photo_name", "photo_sha256", "method", "client_version", "server_version")


@dataclass(frozen=True, eq=False)
class Inversion:
    """``w* = (f, w_M+)`` of a photo, with where it came from.

    W+ is the space whose ``f`` is the generator's constant, of side 4, and whose ``w_m_plus`` are all styles.

    Attributes:
        f: float32 [channels, cut, cut], the generator's feature map before layer M.
        w_m_plus: float32 [styles, 512], one style per layer from M on (12 of FFHQ's 16).
        f_o: float32 [channels, cut, cut], the encoder's own estimate of ``f``, before any refinement.
        generator: fingerprint of the generator that ``f`` and ``w_m_plus`` belong to.
        domain: what the generator shows, for example ``ffhq``.
        cut: side of ``f``: 8 or 16, or 4 for W+.
        frame: the square of the photo that was inverted, in pixels of the photo as shown.
        photo_size: width and height of the photo as shown, in pixels.
        photo_sha256: hex digest of the photo file's bytes.
        photo_name: the photo file's name, without folders.
        method: how it was made: ``encoder``, one pass without refinement; ``mean``, with the mean of W as styles;
            ``refined:default``, a refinement by that preset.
        versions: versions of the ``client`` and the ``server`` that made it.
        target: the photo's square as a PNG file, RGB, of the generator's resolution; None if it was not kept.
        refinement: how far a refinement got; None without one.
        face: what edits need to move ``f``; None if they leave it.
        faithful: the code that is rendered, if ``f`` and ``w_m_plus`` are only for edits and refinements to start from.

    Raises:
        InversionError: on creation, when a tensor has another shape or dtype or is not finite, or the target is not
            a square PNG.
    """

    f: NDArray[np.float32]
    w_m_plus: NDArray[np.float32]
    f_o: NDArray[np.float32]
    generator: str
    domain: str
    cut: int
    frame: Frame
    photo_size: tuple[int, int]
    photo_sha256: str
    photo_name: str
    method: str
    versions: dict[str, str] = field(default_factory=dict)
    target: bytes | None = None
    refinement: Refinement | None = None
    face: FaceStyles | None = None
    faithful: Faithful | None = None

    def __post_init__(self) -> None:
        _validate(self, "the inversion")

    @property
    def editable(self) -> Inversion:
        """The same without its faithful code: what edits change, as it is rendered before they do."""
        return replace(self, faithful=None)

    @property
    def pose(self) -> Pose | None:
        """How the face lies in the square; None if it is not known."""
        return None if self.face is None else self.face.pose

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
        what = quoted(path)
        schema = metadata.get("schema")
        if schema is None:
            raise InversionError(f"{what} is a safetensors file, but not an inversion")
        if schema not in SCHEMAS:
            raise InversionError(f"{what} has the schema {quoted(schema)}: expected {SCHEMA} to {FAITHFUL_SCHEMA[-1]}")
        f, w_m_plus, f_o = (
            tensors.require(found, name, what=what, error=InversionError) for name in ("f", "w_m_plus", "f_o")
        )
        missing = [key for key in (*_TEXTS, "cut", "photo_size") if key not in metadata]
        if not {"frame", "crop"} & set(metadata):
            missing.append("crop")
        if missing:
            raise InversionError(f"{what} does not say its {missing[0]}")
        try:
            cut = int(metadata["cut"])
            width, height = (int(part) for part in metadata["photo_size"].split("x"))
            frame = _frame(metadata, (width, height))
        except (ValueError, PhotoError) as problem:
            raise InversionError(f"{what} has an unreadable cut, frame or photo size") from problem
        texts = {key: shown(metadata[key]) for key in _TEXTS}
        versions = {side: texts.pop(f"{side}_version") for side in ("client", "server")}
        target = refinement = face = faithful = None
        if schema != SCHEMA:
            target, refinement = _target(found, what), _refinement(found, metadata, what)
        if schema in (FACE_SCHEMA, FAITHFUL_SCHEMA):
            face = FaceStyles.found(found, what)
        if schema == FAITHFUL_SCHEMA:
            faithful = Faithful.found(found, what)
        try:
            inversion = cls(
                f,
                w_m_plus,
                f_o,
                cut=cut,
                frame=frame,
                photo_size=(width, height),
                versions=versions,
                target=target,
                refinement=refinement,
                face=face,
                faithful=faithful,
                **texts,
            )
            if target is not None:
                inversion.target_pixels()
        except InversionError as problem:
            raise InversionError(str(problem).replace("the inversion", what)) from problem
        return inversion

    def target_pixels(self) -> NDArray[np.uint8]:
        """Return the photo's square: uint8 RGB [S, S, 3].

        Raises:
            InversionError: it was not kept, or the PNG is damaged.
        """
        if self.target is None:
            raise InversionError("the inversion does not hold its photo")
        try:
            return np.array(_png(self.target))
        except Exception as problem:
            # Decoders of foreign bytes raise nearly anything.
            raise InversionError("the target of the inversion is not a whole PNG file") from problem

    def require_generator(self, generator: str, *, domain: str | None = None, cut: int | None = None) -> None:
        """Refuse a generator that the inversion does not belong to.

        Raises:
            GeneratorMismatch: the fingerprint, the domain or the cut is another one.
        """
        if self.generator != generator:
            raise GeneratorMismatch(
                f"the inversion of {quoted(self.photo_name)} was made with generator {self.generator}, "
                f"but the server runs generator {shown(generator)}: invert the photo again there"
            )
        if domain is not None and self.domain != domain:
            raise GeneratorMismatch(
                f"the inversion of {quoted(self.photo_name)} has domain {self.domain}, not {domain}"
            )
        if cut is not None and self.cut != cut:
            raise GeneratorMismatch(
                f"the inversion of {quoted(self.photo_name)} was cut at {self.cut}x{self.cut}, "
                f"but the server cuts at {cut}x{cut}"
            )

    def require_photo(self, photo: Photo) -> None:
        """Refuse another photo than the one that was inverted.

        Raises:
            PhotoError: its file has another digest, or it has another size.
        """
        if photo.sha256 != self.photo_sha256 or photo.size != self.photo_size:
            raise PhotoError(
                f"{quoted(photo.name)} is not the photo that was inverted: expected {quoted(self.photo_name)}"
            )

    def _tensors(self) -> dict[str, tensors.Stored]:
        found: dict[str, tensors.Stored] = {"f": self.f, "w_m_plus": self.w_m_plus, "f_o": self.f_o}
        if self.target is not None:
            found["target"] = np.frombuffer(self.target, np.uint8)
        if self.refinement is not None:
            found |= {f"{_OPTIMISER}{name}": value for name, value in self.refinement.optimiser.items()}
        if self.face is not None:
            found |= self.face.stored()
        if self.faithful is not None:
            found |= self.faithful.named()
        return found

    @property
    def _schema(self) -> str:
        if self.faithful is not None:
            return FAITHFUL_SCHEMA
        if self.face is not None:
            return FACE_SCHEMA
        return SCHEMA if self.target is None and self.refinement is None else REFINED_SCHEMA

    def _metadata(self) -> dict[str, str]:
        account = {} if self.refinement is None else {"refinement": self.refinement.encode()}
        return {
            "schema": self._schema,
            **account,
            "generator": self.generator,
            "domain": self.domain,
            "cut": str(self.cut),
            "frame": self.frame.encode(),
            **_crop(self.frame),
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
        raise InversionError(f"invalid cut {cut} of {what}: expected 8 or 16, or 4 for W+")
    for name, tensor in (("f", inversion.f), ("w_m_plus", inversion.w_m_plus), ("f_o", inversion.f_o)):
        if wrong := tensors.fault(tensor):
            raise InversionError(f"tensor '{name}' of {what} {wrong}")
    shape = inversion.f.shape
    if len(shape) != 3 or not 1 <= shape[0] <= _MAX_CHANNELS or shape[1:] != (cut, cut):
        raise InversionError(f"tensor 'f' of {what} is {list(shape)}, not [channels, {cut}, {cut}]")
    if inversion.f_o.shape != shape:
        raise InversionError(f"tensor 'f_o' of {what} is {list(inversion.f_o.shape)}, not {list(shape)} like 'f'")
    styles = inversion.w_m_plus.shape
    if len(styles) != 2 or not 1 <= styles[0] <= _MAX_STYLES or styles[1] != STYLE_DIM:
        raise InversionError(f"tensor 'w_m_plus' of {what} is {list(styles)}, not [styles, {STYLE_DIM}]")
    if inversion.face is not None:
        inversion.face.check(what, dim=STYLE_DIM)
    if inversion.faithful is not None:
        inversion.faithful.check(what, f=shape, w_m_plus=styles)
    frame, (width, height) = inversion.frame, inversion.photo_size
    if not frame.shows((width, height)):
        raise InversionError(f"the {frame} of {what} does not lie within its photo of {width}x{height} pixels")
    if inversion.target is not None:
        try:
            width, height = _png(inversion.target).size
        except Exception:
            # As in target_pixels.
            width = height = 0
        if width != height or not _MIN_TARGET <= width <= _MAX_TARGET:
            raise InversionError(f"the target of {what} is not a square PNG file in RGB")


def _frame(metadata: Mapping[str, str], photo_size: tuple[int, int]) -> Frame:
    """Read the frame; older files have a crop of whole pixels, mostly the centred square."""
    if "frame" in metadata:
        return Frame.decode(metadata["frame"])
    found, square = Frame.parse_crop(metadata["crop"]), Frame.square(photo_size)
    return square if (found.x, found.y, found.side) == (square.x, square.y, square.side) else found


def _crop(frame: Frame) -> dict[str, str]:
    """The frame as older versions read it, where it is a square of whole pixels."""
    numbers = (frame.x, frame.y, frame.dx)
    if frame.kind in ("aligned", "upright") or any(number != int(number) for number in numbers):
        return {}
    return {"crop": ",".join(str(int(number)) for number in numbers)}


def _png(data: bytes) -> Image.Image:
    """Open a PNG file in RGB, of which only the header is read here."""
    with warnings.catch_warnings():
        # The size is checked before any pixel is decoded.
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=("PNG",))
    if image.mode != "RGB":
        raise ValueError(image.mode)
    return image


def _target(found: Mapping[str, NDArray[np.generic]], what: str) -> bytes | None:
    if "target" not in found:
        return None
    stored = found["target"]
    if stored.dtype != np.uint8 or stored.ndim != 1 or stored.size > _MAX_TARGET_BYTES:
        raise InversionError(f"tensor 'target' of {what} is not the bytes of a PNG file")
    return stored.tobytes()


def _refinement(found: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str], what: str) -> Refinement | None:
    if "refinement" not in metadata:
        return None
    optimiser = {
        name.removeprefix(_OPTIMISER): tensors.require(found, name, what=what, error=InversionError)
        for name in found
        if name.startswith(_OPTIMISER)
    }
    try:
        return Refinement.decode(metadata["refinement"], optimiser)
    except ParameterError as problem:
        raise InversionError(f"{what} has an unreadable refinement: {problem}") from problem
