"""What to make of each photo, and how: the same in one process and on a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import warnings
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.api import AsyncInverter
from client.atomic import Content, Draft
from client.batch.manifest import Item
from client.change.together import Together
from client.errors import AnswerRefused, ClientError, ParameterError, PhotoError, RefinementDiverged, RequestRejected
from client.files import direction as directions
from client.files.formats import FORMATS, Format, Show
from client.files.inversion import SUFFIX, Inversion
from client.files.names import distinct_part
from client.files.photo import Photo
from client.files.record import RefineOptions
from client.files.sheet import Picture, encoded, fitted, save
from client.frames.choice import LARGEST, Wanted
from client.frames.frame import Frame
from client.limits import at_a_time
from client.sidecar.resume import Refined
from client.triton.checks import checked_method
from client.wire.request_id import SERVICE, named
from protocol.methods import DEFAULT, METHODS
from protocol.tracing import tracing

Image8 = NDArray[np.uint8]
Made = tuple[Inversion, Image8]
# The fault of a photo, or of one of its faces: it fails alone. Any other error would hit the next photo, too.
OF_THE_PHOTO: Final = (PhotoError, RequestRejected, RefinementDiverged, AnswerRefused)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of each photo.

    Attributes:
        edits: names of directions, or paths of direction files, with their strengths.
        domain: the generator.
        method: a key of ``protocol.methods.METHODS``.
        cut: side of f; None is the method's own.
        refine: options of the refinement; None leaves it out.
        format: format of the pictures.
        show: the whole photo with an edit in it, or the generator's picture.
        wanted: which frame of each photo, for the largest face or for all; a photo's own crop comes first.
    """

    edits: tuple[tuple[str, tuple[float, ...]], ...]
    domain: str
    method: str = DEFAULT
    cut: int | None = None
    refine: RefineOptions | None = None
    format: Format = "jpeg"
    show: Show = "photo"
    wanted: Wanted = field(default_factory=Wanted)
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
        del values["_directions"], values["wanted"]
        frame = self.wanted.frame
        values["frame"] = frame.encode() if isinstance(frame, Frame) else frame
        values["faces"] = self.wanted.face
        values["digests"] = [self._directions[name].digest() for name, _ in self.edits]
        values["edits"] = [[name, list(strengths)] for name, strengths in self.edits]
        if self.refine is not None:
            values["refine"] = {**values["refine"], "weights": dict(self.refine.weights)}
        return values

    def shown(self, folder: Path, item: Item) -> list[Path]:
        """Return the pictures of a photo's results that have the same names for every photo."""
        own = [self._place(folder, item, "reconstruction")] if self.wanted.face == LARGEST else []
        return own + [self._place(folder, item, distinct_part(name)) for name in self._names()]

    async def make(self, inverter: AsyncInverter, item: Item, folder: Path) -> str:
        """Invert a photo, edit it, and write all of its files together.

        Returns:
            What is odd about the photo, for its owner; usually nothing.

        Raises:
            FacesFailed: some of its faces cannot be made; everything is written without them.
            ClientError: it cannot be made; nothing is written then.
        """
        request = request_of(item)
        with named(request), tracing(SERVICE).span("photo", request_id=request):
            return await self._make(inverter, item, folder)

    async def _make(self, inverter: AsyncInverter, item: Item, folder: Path) -> str:
        photo = await asyncio.to_thread(Photo.open, item.path)
        wanted = self.wanted if item.crop is None else Wanted(Frame.parse_crop(item.crop))
        found = await inverter.frames(photo, wanted)
        faces = await self._inverted(inverter, photo, found.frames)
        parts = [f".face-{number}" for number in found.numbers] if wanted.face != LARGEST else []
        made = [each for each in faces if not isinstance(each, ClientError)]
        with Draft() as draft:
            for face, part in zip(faces, parts or [""], strict=True):
                if not isinstance(face, ClientError):
                    draft.add(self._place(folder, item, f"reconstruction{part}"), encoded(face[1], self.format))
            problems: dict[int, ClientError] = {}
            notes = [photo.note, found.note]
            async for name, write in self._edited(inverter, photo, made, problems, notes):
                await asyncio.to_thread(draft.add, self._place(folder, item, distinct_part(name)), write)
                del write  # Before the next one is made: it may be a large photo.
            # Inversions come last: where they are, all is.
            for face, part in zip(faces, parts or [""], strict=True):
                if not isinstance(face, ClientError):
                    draft.add(folder / item.name / f"photo{part}{SUFFIX}", face[0].encode())
            await asyncio.to_thread(draft.publish)
        unedited = iter([problems.get(index) for index in range(len(made))])
        lost = [face if isinstance(face, ClientError) else next(unedited) for face in faces]
        if failed := [f"face {n}: {problem}" for n, problem in zip(found.numbers, lost, strict=False) if problem]:
            raise FacesFailed(f"{'; '.join(failed)}; what could be made of the photo is there")
        return "; ".join(note for note in notes if note)

    async def _inverted(
        self, inverter: AsyncInverter, photo: Photo, frames: Sequence[Frame]
    ) -> list[Made | ClientError]:
        """Return the inversion of each frame and its picture, or why it failed.

        Raises:
            ClientError: all failed, or the servers stayed away.
        """
        room = asyncio.Semaphore(at_a_time(len(frames)))

        async def one(frame: Frame) -> Made | ClientError:
            async with room:
                try:
                    result = await inverter.invert(photo, frame, method=self.method, cut=self.cut)
                    if self.refine is None:
                        return result.inversion, result.reconstruction
                    options = self.refine.shared(len(frames))
                    inversion = await self._refined(inverter, result.inversion, photo, options)
                    return inversion, await inverter.render(inversion)
                except OF_THE_PHOTO as problem:
                    return problem

        tasks = [asyncio.create_task(one(frame)) for frame in frames]
        try:
            found = list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        _raise_if_all([each for each in found if isinstance(each, ClientError)], len(frames))
        return found

    async def _edited(
        self,
        inverter: AsyncInverter,
        photo: Photo,
        faces: Sequence[Made],
        problems: dict[int, ClientError],
        notes: list[str],
    ) -> AsyncGenerator[tuple[str, Content], None]:
        """Yield each edit's name, and what writes its picture, with the edits of all faces.

        A face whose edit fails stays as it is in that picture; ``problems`` gets the reason, by its index, and
        ``notes`` what there is to know of the pictures.

        Raises:
            ClientError: the edits of all faces failed, or the servers stayed away.
        """
        if self.show == "render":
            ((inversion, _),) = faces
            for name, strengths in self.edits:
                images = await inverter.edit(inversion, self._directions[name], strengths)
                for strength, image in zip(strengths, images, strict=True):
                    yield self._name(name, strength), partial(save, image, self.format)
            return
        sources = [await inverter.for_change(each, photo) for each, _ in faces]
        plain = []
        for source, (each, image) in zip(sources, faces, strict=True):
            render = image if each.faithful is None else await inverter.render(source.editable)
            plain.append((source.frame, render, source.pose))
        whole = Together(photo, plain)
        for name, strengths in self.edits:
            for part, pictures in whole.pictures(strengths):
                failed = []
                for index, source in enumerate(sources):
                    try:
                        images = await inverter.edit(source, self._directions[name].in_photo, part)
                    except OF_THE_PHOTO as problem:
                        failed.append(problems.setdefault(index, problem))
                    else:
                        turns, features = self._directions[name].turned(part), self._directions[name].features
                        await asyncio.to_thread(whole.add, index, list(images), pictures, turns, features)
                _raise_if_all(failed, len(faces))
                for strength in part:
                    yield self._name(name, strength), partial(save, pictures.pop(0), self.format)
        notes += whole.notes

    def _place(self, folder: Path, item: Item, stem: str) -> Path:
        return folder / item.name / f"{stem}{FORMATS[self.format]}"

    def _name(self, name: str, strength: float) -> str:
        return f"{self._directions[name].name}{strength:+.9g}"

    def _names(self) -> list[str]:
        return [self._name(name, strength) for name, strengths in self.edits for strength in strengths]

    async def _refined(
        self, inverter: AsyncInverter, start: Inversion, photo: Photo, options: RefineOptions
    ) -> Inversion:
        async for event in inverter.refine(start, photo, options):
            if isinstance(event, Refined):
                return event.inversion
        raise AnswerRefused("the side-car ended the refinement without a result")


class FacesFailed(PhotoError):
    """Some faces of a photo failed; the message says which and why."""


def _raise_if_all(problems: Sequence[ClientError], count: int) -> None:
    """Raise the first problem if there are as many as faces."""
    if problems and len(problems) == count:
        raise problems[0]


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
