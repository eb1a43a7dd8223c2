"""The Python API: ``Inverter``, and ``AsyncInverter`` with the same methods as coroutines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client import directions
from client.directions import Direction
from client.inversion import Inversion
from client.photo import Crop, Photo
from client.session import InversionResult, Session, Status
from client.transport import AsyncTransport, Timeout, Transport, run, run_async

DEFAULT_URL: Final = "127.0.0.1:8001"
DEFAULT_DOMAIN: Final = "ffhq"


class Inverter:
    """Inverts and edits photos on a Triton server. Use it as a context manager, or ``close`` it.

    Args:
        url: ``host:port`` of Triton's gRPC endpoint.
        domain: which generator of the server to use.
        timeout: deadlines in seconds.
        transport: in place of gRPC to ``url``; closed with the inverter.

    Raises:
        ParameterError: the URL or the domain is malformed.

    Every method that asks the server raises ``ServerError`` or one of its kinds when there is no usable answer.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        domain: str = DEFAULT_DOMAIN,
        timeout: Timeout | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._session = Session(transport.url if transport else url, domain=domain, timeout=timeout or Timeout())
        if transport is None:
            from client.triton_grpc import TritonTransport

            transport = TritonTransport(url)
        self._transport = transport

    def __enter__(self) -> Inverter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def invert(self, photo: Photo | str | os.PathLike[str], crop: Crop | None = None) -> InversionResult:
        """Invert a photo by the encoder alone, in one request.

        Args:
            photo: a decoded photo or the path of one.
            crop: the square to invert, in pixels of the photo as shown; the largest centred one by default.

        Raises:
            PhotoError: the photo cannot be read, or the crop does not lie within it.
        """
        return run(self._session.invert(_opened(photo), crop), self._transport)

    def render(self, inversion: Inversion) -> NDArray[np.uint8]:
        """Return the image of an inversion: uint8 RGB [1024, 1024, 3].

        Raises:
            GeneratorMismatch: the server runs another generator.
        """
        return run(self._session.render(inversion), self._transport)

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
    ) -> None:
        self._session = Session(transport.url if transport else url, domain=domain, timeout=timeout or Timeout())
        if transport is None:
            from client.triton_grpc import AsyncTritonTransport

            transport = AsyncTritonTransport(url)
        self._transport = transport

    async def __aenter__(self) -> AsyncInverter:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()

    async def invert(self, photo: Photo | str | os.PathLike[str], crop: Crop | None = None) -> InversionResult:
        """Invert a photo; see ``Inverter.invert``."""
        opened = await asyncio.to_thread(_opened, photo)
        return await run_async(self._session.invert(opened, crop), self._transport)

    async def render(self, inversion: Inversion) -> NDArray[np.uint8]:
        """Return the image of an inversion; see ``Inverter.render``."""
        return await run_async(self._session.render(inversion), self._transport)

    async def edit(
        self, inversion: Inversion, direction: Direction | str, strengths: Sequence[float]
    ) -> NDArray[np.uint8]:
        """Return one image per strength; see ``Inverter.edit``."""
        chosen = await asyncio.to_thread(_direction, self._session.domain, direction)
        return await run_async(self._session.edit(inversion, chosen, strengths), self._transport)

    async def generate(self, seed: int, psi: float = 0.7) -> NDArray[np.uint8]:
        """Return the sample for a seed; see ``Inverter.generate``."""
        return await run_async(self._session.generate(seed, psi), self._transport)

    async def status(self) -> Status:
        """Return the server's status; see ``Inverter.status``."""
        return await run_async(self._session.status(), self._transport)


def _opened(photo: Photo | str | os.PathLike[str]) -> Photo:
    return photo if isinstance(photo, Photo) else Photo.open(photo)


def _direction(domain: str, direction: Direction | str) -> Direction:
    return direction if isinstance(direction, Direction) else directions.load(domain, direction)
