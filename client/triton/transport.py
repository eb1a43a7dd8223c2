"""What Triton is asked, and what it answers; gRPC or a fake in a test carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as a model declares it: NumPy dtype, and dimensions without the batch; -1 is any."""

    dtype: np.dtype[Any]
    dims: tuple[int, ...]


@dataclass(frozen=True)
class ModelConfig:
    """What a served model takes and returns; ``max_batch`` 0 means that tensors have no batch dimension."""

    name: str
    max_batch: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class ServerInfo:
    """The server's own name and version."""

    name: str
    version: str


class Transport(Protocol):
    """Asks Triton once and waits at most ``timeout`` seconds; every failure is a ``ServerError``."""

    @property
    def url(self) -> str:
        """Address of the server, for messages."""

    def live(self, *, timeout: float) -> bool:
        """Whether the server is up."""

    def ready(self, model: str = "", *, timeout: float) -> bool:
        """Whether the server is ready, or the named model."""

    def server(self, *, timeout: float) -> ServerInfo:
        """Return who answers."""

    def versions(self, model: str, *, timeout: float) -> tuple[str, ...]:
        """Return the served versions of a model."""

    def config(self, model: str, *, timeout: float) -> ModelConfig:
        """Return what a model takes and returns."""

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout: float
    ) -> dict[str, Array]:
        """Run a model, and return the named output tensors."""

    def close(self) -> None:
        """Close the connection."""


class AsyncTransport(Protocol):
    """``Transport`` with coroutines."""

    @property
    def url(self) -> str:
        """Address of the server, for messages."""

    async def live(self, *, timeout: float) -> bool:
        """Whether the server is up."""

    async def ready(self, model: str = "", *, timeout: float) -> bool:
        """Whether the server is ready, or the named model."""

    async def server(self, *, timeout: float) -> ServerInfo:
        """Return who answers."""

    async def versions(self, model: str, *, timeout: float) -> tuple[str, ...]:
        """Return the served versions of a model."""

    async def config(self, model: str, *, timeout: float) -> ModelConfig:
        """Return what a model takes and returns."""

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout: float
    ) -> dict[str, Array]:
        """Run a model, and return the named output tensors."""

    async def close(self) -> None:
        """Close the connection."""
