# Generated from api.py by `python -m client.unasync`: edit that file.
"""The Python API: ``Inverter``; ``Inverter``, the same without coroutines, is generated from it."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from client.change.paste import Paste
from client.change.source import drawn, frame_of, styles_of
from client.errors import InversionError, ModelMissing, ParameterError
from client.files import direction as directions
from client.files.direction import Direction
from client.files.inversion import Inversion
from client.files.photo import Photo
from client.files.profile import displayed
from client.files.record import RefineOptions
from client.files.sheet import png
from client.frames.choice import Framing, Wanted, framing
from client.frames.face import Face
from client.frames.frame import Frame
from client.sidecar.resume import RefineEvent, Refiner, refine
from client.sidecar.together import Update, refine_together
from client.sidecar.transport import RefineTransport
from client.text import quoted
from client.triton.session_sync import Session
from client.triton.status import InversionResult, Status
from client.triton.transport import Transport
from client.wire.access import Access
from client.wire.channel import checked_url
from client.wire.defaults import DEFAULT_DOMAIN, DEFAULT_REFINE_URL, DEFAULT_URL
from client.wire.timeout import Timeout
from protocol import methods


class Inverter:
    """Inverts and edits photos on a Triton server, and refines them on a side-car.

    Use it with ``with``, or ``close`` it. It asks Triton about the models once: make a new one if a running
    server gets another generator.

    Args:
        url: ``host:port`` of Triton's gRPC endpoint.
        domain: which generator of the server to use.
        timeout: deadlines in seconds.
        transport: instead of gRPC to ``url``; closed with the inverter.
        refine_url: ``host:port`` of the side-car, which only ``refine`` asks.
        refine_transport: instead of gRPC to ``refine_url``; closed with the inverter.
        access: how to connect to both servers; plain text by default.

    Raises:
        ParameterError: a URL or the domain is malformed, or the access cannot be used.

    Every method that asks the server raises a ``ServerError`` when there is no usable answer.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        domain: str = DEFAULT_DOMAIN,
        timeout: Timeout | None = None,
        transport: Transport | None = None,
        refine_url: str = DEFAULT_REFINE_URL,
        refine_transport: RefineTransport | None = None,
        access: Access | None = None,
    ) -> None:
        self._refine_url, self._access = checked_url(refine_url), access or Access()
        self._access.checked(self._refine_url)
        if transport is None:
            from client.triton.grpc_sync import TritonTransport

            transport = TritonTransport(url, access)
        self._transport = transport
        self._given = refine_transport
        self._session = Session(transport, domain=domain, timeout=timeout or Timeout())
        self._refine_transport = refine_transport

    def __enter__(self) -> Inverter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
        if self._refine_transport is not None:
            self._refine_transport.close()

    def invert(
        self,
        photo: Photo | str | os.PathLike[str],
        frame: Frame | None = None,
        *,
        method: str = methods.DEFAULT,
        cut: int | None = None,
    ) -> InversionResult:
        """Return a photo's code as a method starts with it: from the encoder, in one request, or at the mean of W.

        Args:
            photo: a decoded photo or the path of one.
            frame: the square to invert, in pixels of the photo as shown; the largest centred one by default.
            method: a key of ``protocol.methods.METHODS``; ``refine`` continues with its recipe.
            cut: side of ``f``, 8 or 16 (the default); None for methods of W+.

        Raises:
            PhotoError: the photo cannot be read, or the frame does not lie within it.
            ParameterError: there is no such method, or it has no such cut.
            ModelMissing: the server does not serve the models of the cut.
        """
        opened = _opened(photo)
        return self._session.invert(opened, frame, method=method, cut=cut)

    def faces(self, photo: Photo | str | os.PathLike[str]) -> list[Face]:
        """Return the faces of a photo, the largest first; at most ``protocol.roles.MAX_FACES``, the clearest.

        Args:
            photo: a decoded photo or the path of one.

        Raises:
            PhotoError: the photo cannot be read.
            ModelMissing: the domain shows no faces, or the server has no face finder.
        """
        return self._session.faces(_opened(photo))

    def frames(self, photo: Photo | str | os.PathLike[str], wanted: Wanted | None = None) -> Framing:
        """Return the frames of a photo to invert.

        Args:
            photo: a decoded photo or the path of one.
            wanted: which rule for which faces; by default the best one for the largest face, and the centred square of
                a photo without a face; ``Framing.note`` then says so.

        Raises:
            PhotoError: the photo cannot be read, there is no such face, or it cannot be framed.
        """
        opened, wanted = _opened(photo), wanted or Wanted()
        faces = None
        if wanted.needs_faces:
            with suppress(ModelMissing):
                faces = self._session.faces(opened)
        return framing(wanted, opened.size, faces, name=opened.name)

    def render(self, inversion: Inversion) -> NDArray[np.uint8]:
        """Return the image of an inversion: uint8 RGB [1024, 1024, 3]. Of both codes, if it has a faithful one.

        Raises:
            GeneratorMismatch: the server runs another generator.
        """
        return self._session.render(inversion)

    def refine(
        self,
        inversion: Inversion,
        photo: Photo | str | os.PathLike[str] | None = None,
        options: RefineOptions | None = None,
    ) -> Generator[RefineEvent, None, None]:
        """Refine an inversion on the side-car, and yield what happens; the last event is ``Refined``.

        If the side-car goes away, this waits for it or a replacement (``Timeout.patience``) and continues from the
        last checkpoint. Closing the generator cancels the job. An inversion saved from a ``Checkpoint`` continues
        exactly there; any other one starts a refinement from its ``f`` and ``w_m_plus``.

        Args:
            inversion: what to refine.
            photo: the photo that was inverted; needed unless the inversion holds its square (``Inversion.target``).
            options: by default those that an interrupted inversion names, otherwise ``RefineOptions()``. With another
                preset than its own, an interrupted inversion starts a new refinement.

        Raises:
            GeneratorMismatch: Triton runs another generator.
            PhotoError: the photo cannot be read, or is not the one that was inverted.
            ParameterError: the photo is needed.
            RequestRejected: the side-car rejected the request.
            RefinementDiverged: the loss became NaN or infinite; the last checkpoint is the last finite one.
            ServerUnavailable: no side-car answered within ``Timeout.connect``, or none came back within the patience.
            ServerBusy: it accepted no job within the patience.
            ServerTimeout: ``Timeout.refinement`` passed.
        """
        side = self._session.image_side(inversion)
        if self._refine_transport is None:
            self._refine_transport = self._connected()
        transport = self._refine_transport
        holding = _with_target(inversion, photo, side)
        refiner = Refiner(holding, options, timeout=self._session.timeout, url=transport.url)
        with closing(refine(refiner, transport)) as events:
            for event in events:
                yield event

    def refine_all(
        self,
        inversions: Sequence[Inversion],
        photo: Photo | str | os.PathLike[str] | None = None,
        options: RefineOptions | None = None,
    ) -> Generator[Update, None, None]:
        """Refine inversions of several faces of a photo together, and yield what happens, each with its place in them.

        The side-car runs them as one batch, ``client.limits.FACES_AT_A_TIME`` at most. The last event of each is
        ``Refined``, or ``Failed``, which leaves the others. Closing the generator cancels all jobs.

        Args:
            inversions: what to refine, each as in :meth:`refine`.
            photo: the photo that was inverted; needed unless the inversions hold their squares.
            options: of each of them, as in :meth:`refine`; ``options.shared(len(inversions))`` where its seconds are
                those of all together.

        Raises:
            GeneratorMismatch: Triton runs another generator.
            PhotoError: the photo cannot be read, or is not the one that was inverted.
            ParameterError: the photo is needed.
        """
        opened = None if photo is None else _opened(photo)
        holding = []
        for inversion in inversions:
            side = self._session.image_side(inversion)
            holding.append(_with_target(inversion, opened, side))
        owned = self._given is None
        transport = self._connected() if self._given is None else self._given
        begin = partial(Refiner, options=options, timeout=self._session.timeout, url=transport.url)
        jobs = [partial(begin, each) for each in holding]
        with closing(refine_together(jobs, transport, owned=owned)) as updates:
            for update in updates:
                yield update

    def edit(
        self,
        inversion: Inversion,
        direction: Direction | str,
        strengths: Sequence[float],
        photo: Photo | str | os.PathLike[str] | None = None,
    ) -> NDArray[np.uint8]:
        """Return one image per strength: the whole photo with the change in it, uint8 RGB [n, H, W, 3].

        Args:
            inversion: what to edit. ``w_m_plus`` is moved, and with ``inversion.face`` also ``f``. A faithful code
                takes no part: at strength 0 the image is that of ``inversion.editable``.
            direction: a direction, its name, or the path of a ``.safetensors`` file.
            strengths: in the direction's units, from -100 to 100; any number of them.
            photo: the photo that was inverted; without it, the images are the generator's, uint8 RGB
                [n, 1024, 1024, 3]. For large photos, make one at a time with ``Paste``.

        Raises:
            PhotoError: the photo cannot be read, or is not the one that was inverted.
            GeneratorMismatch: the server runs another generator.
            DirectionError: the direction is unknown, or for another generator.
            ParameterError: no strength, or one out of range.
        """
        chosen = _direction(self._session.domain, direction)
        if photo is None:
            return self._session.edit(inversion, chosen, strengths)
        opened = _opened(photo)
        inversion.require_photo(opened)
        source = self.for_change(inversion, opened)
        images = self._session.edit(source, chosen.in_photo, strengths)
        plain = self._session.render(source.editable)
        return _pasted(opened, source, (plain, images), chosen, strengths)

    def for_change(self, inversion: Inversion, photo: Photo) -> Inversion:
        """Return the code whose change is laid over a photo, in the square where it is laid: its ``frame``.

        A refined inversion is its own. Otherwise it is another, of the aligned face; see ``client.change.source``.

        Args:
            inversion: what is edited.
            photo: the photo that was inverted.

        Raises:
            GeneratorMismatch: the server runs another generator.
        """
        if inversion.faithful is None or inversion.face is None:
            return inversion
        if (frame := frame_of(inversion)) != inversion.frame:
            inversion = (self._session.invert(photo, frame, cut=inversion.cut)).inversion
        face = inversion.face
        if face is None:
            return inversion
        return drawn(inversion, face, self._session.coarse(styles_of(inversion, face)[0]))

    def check_edit(self, inversion: Inversion, direction: Direction | str) -> None:
        """Raise what :meth:`edit` would raise for a direction; nothing is rendered."""
        chosen = _direction(self._session.domain, direction)
        self._session.step(inversion, chosen)

    def generate(self, seed: int, psi: float = 0.7) -> NDArray[np.uint8]:
        """Return the generator's sample for a seed: uint8 RGB [1024, 1024, 3].

        Args:
            seed: seed of NumPy's PCG64, whose 512 standard normals are z; 0 or more.
            psi: truncation from -2 to 2; 1 means no truncation, 0 the mean face.

        Raises:
            ParameterError: the seed or psi is out of range.
        """
        return self._session.generate(seed, psi)

    def status(self) -> Status:
        """Return what the server says about itself and the domain's models."""
        return self._session.status()

    def _connected(self) -> RefineTransport:
        """Return a new connection to the side-car."""
        from client.sidecar.grpc import GrpcRefineTransport

        return GrpcRefineTransport(self._refine_url, self._access, patience=self._session.timeout.patience)


def _with_target(inversion: Inversion, photo: Photo | str | os.PathLike[str] | None, side: int) -> Inversion:
    """Return the inversion with its photo's square as a PNG of ``side`` pixels, which it or the photo must hold."""
    name = quoted(inversion.photo_name)
    if photo is not None:
        opened = _opened(photo)
        inversion.require_photo(opened)
        return replace(inversion, target=png(opened.pixels(inversion.frame, side)))
    if inversion.target is None:
        raise ParameterError(f"the inversion does not hold its photo: pass {name} itself")
    if inversion.target_pixels().shape[0] != side:
        raise InversionError(f"the target of the inversion of {name} is not {side}x{side} pixels")
    return inversion


def _pasted(
    photo: Photo,
    inversion: Inversion,
    renders: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    direction: Direction,
    strengths: Sequence[float],
) -> NDArray[np.uint8]:
    """Return the photo with each change in it, uint8 RGB [n, H, W, 3]; ``renders`` are plain and edited ones."""
    plain, images = renders
    whole, turns = Paste(photo, inversion.frame, plain, pose=inversion.pose), direction.turned(strengths)
    pictures = (whole(image, turn=turn, features=direction.features) for image, turn in zip(images, turns, strict=True))
    return np.stack([np.asarray(displayed(picture)) for picture in pictures])


def _opened(photo: Photo | str | os.PathLike[str]) -> Photo:
    return photo if isinstance(photo, Photo) else Photo.open(photo)


def _direction(domain: str, direction: Direction | str) -> Direction:
    return directions.load(domain, direction) if isinstance(direction, str) else direction
