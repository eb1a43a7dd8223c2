"""What to make of each photo, and how: the same in one process and on a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.api import AsyncInverter
from client.atomic import write_all
from client.batch.manifest import Item
from client.change.paste import Paste
from client.errors import AnswerRefused, ParameterError
from client.files import direction as directions
from client.files.formats import FORMATS, Format, Show
from client.files.inversion import SUFFIX, Inversion
from client.files.names import distinct_part
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.files.sheet import Picture, encoded, fitted
from client.frames.frame import Frame
from client.sidecar.resume import Refined
from client.triton.checks import checked_method
from client.wire.request_id import SERVICE, named
from protocol.methods import DEFAULT, METHODS
from protocol.tracing import tracing

Image8 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of each photo.

    Attributes:
        edits: names of directions, or paths of direction files, with their strengths.
        domain: the generator.
        method: a key of ``protocol.methods.METHODS``.
        cut: side of f; None is the method's own.
        refine: options of the refinement; None leaves it out.
        format: of the pictures.
        show: the whole photo with an edit in it, or the generator's picture.
    """

    edits: tuple[tuple[str, tuple[float, ...]], ...]
    domain: str
    method: str = DEFAULT
    cut: int | None = None
    refine: RefineOptions | None = None
    format: Format = "jpeg"
    show: Show = "photo"
    _directions: dict[str, directions.Direction] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Load the directions.

        Raises:
            ParameterError, DirectionError: there is no such method, or no such direction.
        """
        checked_method(self.method, self.cut)
        if self.refine is None and METHODS[self.method].start == "mean":
            raise ParameterError(f"the method {self.method} has no encoder, so it cannot run without refinement")
        for name, _ in self.edits:
            self._directions[name] = directions.load(self.domain, name)

    def account(self) -> dict[str, Any]:
        """Return plain values that survive JSON: equal for plans that make the same."""
        values = asdict(self)
        del values["_directions"]
        values["digests"] = [self._directions[name].digest() for name, _ in self.edits]
        values["edits"] = [[name, list(strengths)] for name, strengths in self.edits]
        if self.refine is not None:
            values["refine"] = {**values["refine"], "weights": dict(self.refine.weights)}
        return values

    def files(self, folder: Path, item: Item) -> dict[str, Path]:
        """Return where the results of a photo go: ``inversion``, ``reconstruction``, and ``NAME+S`` for each edit."""
        suffix = FORMATS[self.format]
        place = folder / item.name
        names = [f"{self._directions[name].name}{s:+.9g}" for name, strengths in self.edits for s in strengths]
        found = {"inversion": place / f"photo{SUFFIX}", "reconstruction": place / f"reconstruction{suffix}"}
        return found | {name: place / f"{distinct_part(name)}{suffix}" for name in names}

    async def make(self, inverter: AsyncInverter, item: Item, folder: Path) -> None:
        """Invert a photo, edit it, and write all of its files together.

        Raises:
            ClientError: it cannot be made; nothing is written then.
        """
        request = request_of(item)
        with named(request), tracing(SERVICE).span("photo", request_id=request):
            await self._make(inverter, item, folder)

    async def _make(self, inverter: AsyncInverter, item: Item, folder: Path) -> None:
        photo = await asyncio.to_thread(Photo.open, item.path)
        frame = None if item.crop is None else Frame.parse_crop(item.crop)
        result = await inverter.invert(photo, frame, method=self.method, cut=self.cut)
        inversion, image = result.inversion, result.reconstruction
        if self.refine is not None:
            inversion = await self._refined(inverter, inversion, photo)
            image = await inverter.render(inversion)
        pictures: dict[str, bytes] = {"reconstruction": encoded(image, self.format)}
        whole = None
        if self.edits and self.show == "photo":
            whole = await asyncio.to_thread(Paste, photo, inversion.frame, image)
        for name, strengths in self.edits:
            direction = self._directions[name]
            images = await inverter.edit(inversion, direction, strengths)
            for strength, found in zip(strengths, images, strict=True):
                key = f"{direction.name}{strength:+.9g}"
                pictures[key] = await asyncio.to_thread(self._picture, whole, found)
        await asyncio.to_thread(self._write, self.files(folder, item), pictures, inversion)

    def _picture(self, whole: Paste | None, image: Image8) -> bytes:
        return encoded(image if whole is None else whole(image), self.format)

    def _write(self, places: dict[str, Path], pictures: dict[str, bytes], inversion: Inversion) -> None:
        contents = {places[name]: found for name, found in pictures.items()}
        # The inversion comes last: where it is, all are.
        write_all({**contents, places["inversion"]: inversion.encode()})

    async def _refined(self, inverter: AsyncInverter, start: Inversion, photo: Photo) -> Inversion:
        async for event in inverter.refine(start, photo, self.refine):
            if isinstance(event, Refined):
                return event.inversion
        raise AnswerRefused("the side-car ended the refinement without a result")


def request_of(item: Item) -> str:
    """Return what a photo is called in the servers' logs and in traces: not its name, but the same in every attempt."""
    return hashlib.sha256(item.name.encode()).hexdigest()[:16]


def thumbnail(path: Path, side: int) -> Image8:
    """Return a picture of the results, small: uint8 RGB [side, side, 3]."""
    with warnings.catch_warnings():
        # It is our own file: photos may be larger than what Pillow warns of.
        warnings.simplefilter("ignore")
        with Image.open(path) as picture:
            picture.draft("RGB", (side, side))
            return tile_of(picture.convert("RGB"), side)


def tile_of(picture: Picture, side: int) -> Image8:
    """Return a picture in the middle of a white square: uint8 RGB [side, side, 3]."""
    page, small = Image.new("RGB", (side, side), "white"), fitted(picture, side)
    page.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return np.asarray(page)
