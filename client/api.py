"""The Python API: ``Inverter``, and ``AsyncInverter`` with the same methods as coroutines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.errors import InversionError, ParameterError, PhotoError
from client.files import direction as directions
from client.files.direction import Direction
from client.files.inversion import Inversion
from client.files.photo import Crop, Photo
from client.files.sheet import png
from client.sidecar.record import RefineOptions
from client.sidecar.resume import RefineEvent, Refiner, refine, refine_async
from client.sidecar.transport import AsyncRefineTransport, RefineTransport
from client.triton.session import InversionResult, Session, Status
from client.triton.transport import AsyncTransport, Timeout, Transport, run, run_async
from client.wire.access import Access
from client.wire.channel import checked_url
from protocol import methods

DEFAULT_URL: Final = "127.0.0.1:8001"
DEFAULT_REFINE_URL: Final = "127.0.0.1:8003"
DEFAULT_DOMAIN: Final = "ffhq"


class Inverter:
    """Inverts and edits photos on a Triton server, and refines them on a side-car.

    Use it as a context manager, or ``close`` it. It asks Triton once what the models are: where a generator is replaced
    under a running server, make a new one.

    Args:
        url: ``host:port`` of Triton's gRPC endpoint.
        domain: which generator of the server to use.
        timeout: deadlines in seconds.
        transport: in place of gRPC to ``url``; closed with the inverter.
        refine_url: ``host:port`` of the side-car, which only ``refine`` asks.
        refine_transport: in place of gRPC to ``refine_url``; closed with the inverter.
        access: how both servers let the client in; plain text by default.

    Raises:
        ParameterError: a URL or the domain is malformed, or the access cannot be used.

    Every method that asks the server raises ``ServerError`` or one of its kinds when there is no usable answer.
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
        self._session = Session(transport.url if transport else url, domain=domain, timeout=timeout or Timeout())
        if transport is None:
            from client.triton.grpc import TritonTransport

            transport = TritonTransport(url, access)
        self._transport = transport
        self._refine_url, self._access = checked_url(refine_url), access or Access()
        self._access.checked(self._refine_url)
        self._refine_transport = refine_transport

    def __enter__(self) -> Inverter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
        if self._refine_transport is not None:
            self._refine_transport.close()

    def invert(
        self,
        photo: Photo | str | os.PathLike[str],
        crop: Crop | None = None,
        *,
        method: str = methods.DEFAULT,
        cut: int | None = None,
    ) -> InversionResult:
        """Give a photo's code as a method starts with it: by the encoder, in one request, or at the mean of W.

        Args:
            photo: a decoded photo or the path of one.
            crop: the square to invert, in pixels of the photo as shown; the largest centred one by default.
            method: a key of ``protocol.methods.METHODS``; its recipe is what ``refine`` goes on with.
            cut: side of ``f``, 8 or 16 (the default); None for methods of W+.

        Raises:
            PhotoError: the photo cannot be read, or the crop does not lie within it.
            ParameterError: there is no such method, or it has no such cut.
            ModelMissing: the server does not serve the models of the cut.
        """
        return run(self._session.invert(_opened(photo), crop, method=method, cut=cut), self._transport)

    def render(self, inversion: Inversion) -> NDArray[np.uint8]:
        """Return the image of an inversion: uint8 RGB [1024, 1024, 3].

        Raises:
            GeneratorMismatch: the server runs another generator.
        """
        return run(self._session.render(inversion), self._transport)

    def refine(
        self,
        inversion: Inversion,
        photo: Photo | str | os.PathLike[str] | None = None,
        options: RefineOptions | None = None,
    ) -> Generator[RefineEvent, None, None]:
        """Refine an inversion on the side-car, and give what happens; the last event is ``Refined``.

        A side-car that goes away is waited for (``Timeout.patience``) and asked to go on from the last checkpoint, and
        so is another one in its place. Closing the generator cancels the job. An inversion that was saved from a
        ``Checkpoint`` goes on exactly from there; any other one starts a refinement from its ``f`` and ``w_m_plus``.

        Args:
            inversion: what to refine.
            photo: the photo that was inverted; needed unless the inversion holds its square (``Inversion.target``).
            options: by default those that an interrupted inversion names, otherwise ``RefineOptions()``. With another
                preset than its own, an interrupted inversion starts a new refinement.

        Raises:
            GeneratorMismatch: Triton runs another generator.
            PhotoError: the photo cannot be read, or is another one than was inverted.
            ParameterError: the photo is needed.
            RequestRejected: the side-car refused the request.
            RefinementDiverged: the loss became NaN or infinite; the last checkpoint is the last finite one.
            ServerUnavailable: no side-car answered within ``Timeout.connect``, or none came back within the patience.
            ServerBusy: it took nothing for as long.
            ServerTimeout: ``Timeout.refinement`` passed.
        """
        side = run(self._session.image_side(inversion), self._transport)
        if self._refine_transport is None:
            from client.sidecar.grpc import GrpcRefineTransport

            self._refine_transport = GrpcRefineTransport(self._refine_url, self._access)
        transport = self._refine_transport
        holding = _with_target(inversion, photo, side)
        yield from refine(Refiner(holding, options, timeout=self._session.timeout, url=transport.url), transport)

    def edit(self, inversion: Inversion, direction: Direction | str, strengths: Sequence[float]) -> NDArray[np.uint8]:
        """Return one image per strength: uint8 RGB [n, 1024, 1024, 3].

        Args:
            inversion: what to edit; only ``w_m_plus`` is moved.
            direction: a direction, its name, or the path of a ``.safetensors`` file.
            strengths: in the direction's units, from -100 to 100; any number of them.

        Raises:
            GeneratorMismatch: the server runs another generator.
            DirectionError: the direction is unknown, or of another generator.
            ParameterError: no strength, or one out of range.
        """
        chosen = _direction(self._session.domain, direction)
        return run(self._session.edit(inversion, chosen, strengths), self._transport)

    def check_edit(self, inversion: Inversion, direction: Direction | str) -> None:
        """Raise what :meth:`edit` would raise for a direction; nothing is rendered."""
        run(self._session.step(inversion, _direction(self._session.domain, direction)), self._transport)

    def generate(self, seed: int, psi: float = 0.7) -> NDArray[np.uint8]:
        """Return the generator's sample for a seed: uint8 RGB [1024, 1024, 3].

        Args:
            seed: of NumPy's PCG64, whose 512 standard normals are z; 0 or more.
            psi: truncation from -2 to 2; 1 is none, 0 the mean face.

        Raises:
            ParameterError: the seed or psi is out of range.
        """
        return run(self._session.generate(seed, psi), self._transport)

    def status(self) -> Status:
        """Return what the server says about itself and the domain's models."""
        return run(self._session.status(), self._transport)


class AsyncInverter:
    """``Inverter`` with coroutines: the same arguments, results and errors. For ``async with``."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        domain: str = DEFAULT_DOMAIN,
        timeout: Timeout | None = None,
        transport: AsyncTransport | None = None,
        refine_url: str = DEFAULT_REFINE_URL,
        refine_transport: AsyncRefineTransport | None = None,
        access: Access | None = None,
    ) -> None:
        self._session = Session(transport.url if transport else url, domain=domain, timeout=timeout or Timeout())
        if transport is None:
            from client.triton.grpc import AsyncTritonTransport

            transport = AsyncTritonTransport(url, access)
        self._transport = transport
        self._refine_url, self._access = checked_url(refine_url), access or Access()
        self._access.checked(self._refine_url)
        self._refine_transport = refine_transport

    async def __aenter__(self) -> AsyncInverter:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
        if self._refine_transport is not None:
            await self._refine_transport.close()

    async def invert(
        self,
        photo: Photo | str | os.PathLike[str],
        crop: Crop | None = None,
        *,
        method: str = methods.DEFAULT,
        cut: int | None = None,
    ) -> InversionResult:
        """Invert a photo; see ``Inverter.invert``."""
        opened = await asyncio.to_thread(_opened, photo)
        return await run_async(self._session.invert(opened, crop, method=method, cut=cut), self._transport)

    async def render(self, inversion: Inversion) -> NDArray[np.uint8]:
        """Return the image of an inversion; see ``Inverter.render``."""
        return await run_async(self._session.render(inversion), self._transport)

    async def refine(
        self,
        inversion: Inversion,
        photo: Photo | str | os.PathLike[str] | None = None,
        options: RefineOptions | None = None,
    ) -> AsyncGenerator[RefineEvent, None]:
        """Refine an inversion; see ``Inverter.refine``. Wrap it in ``contextlib.aclosing`` to leave it early."""
        side = await run_async(self._session.image_side(inversion), self._transport)
        if self._refine_transport is None:
            from client.sidecar.grpc import AsyncGrpcRefineTransport

            self._refine_transport = AsyncGrpcRefineTransport(self._refine_url, self._access)
        transport = self._refine_transport
        holding = await asyncio.to_thread(_with_target, inversion, photo, side)
        refiner = Refiner(holding, options, timeout=self._session.timeout, url=transport.url)
        async with aclosing(refine_async(refiner, transport)) as events:
            async for event in events:
                yield event

    async def edit(
        self, inversion: Inversion, direction: Direction | str, strengths: Sequence[float]
    ) -> NDArray[np.uint8]:
        """Return one image per strength; see ``Inverter.edit``."""
        chosen = await asyncio.to_thread(_direction, self._session.domain, direction)
        return await run_async(self._session.edit(inversion, chosen, strengths), self._transport)

    async def check_edit(self, inversion: Inversion, direction: Direction | str) -> None:
        """Raise what ``edit`` would; see ``Inverter.check_edit``."""
        chosen = await asyncio.to_thread(_direction, self._session.domain, direction)
        await run_async(self._session.step(inversion, chosen), self._transport)

    async def generate(self, seed: int, psi: float = 0.7) -> NDArray[np.uint8]:
        """Return the sample for a seed; see ``Inverter.generate``."""
        return await run_async(self._session.generate(seed, psi), self._transport)

    async def status(self) -> Status:
        """Return the server's status; see ``Inverter.status``."""
        return await run_async(self._session.status(), self._transport)


def _with_target(inversion: Inversion, photo: Photo | str | os.PathLike[str] | None, side: int) -> Inversion:
    """Return the inversion with its photo's square as a PNG of ``side`` pixels; it has to be there, or in the photo."""
    if photo is not None:
        opened = _opened(photo)
        if opened.sha256 != inversion.photo_sha256:
            raise PhotoError(
                f"{opened.name} is not the photo that was inverted, whose name was {inversion.photo_name}."
            )
        return replace(inversion, target=png(opened.pixels(opened.square(inversion.crop), side)))
    if inversion.target is None:
        raise ParameterError(f"The inversion does not hold its photo, so {inversion.photo_name} itself is needed.")
    if inversion.target_pixels().shape[0] != side:
        raise InversionError(f"The target of the inversion of {inversion.photo_name} is not of {side}x{side} pixels.")
    return inversion


def _opened(photo: Photo | str | os.PathLike[str]) -> Photo:
    return photo if isinstance(photo, Photo) else Photo.open(photo)


def _direction(domain: str, direction: Direction | str) -> Direction:
    return direction if isinstance(direction, Direction) else directions.load(domain, direction)
