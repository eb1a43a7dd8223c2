"""How a side-car is reached: gRPC, or a fake in a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Protocol

from protocol.messages import Message, RefineRequest


class RefineTransport(Protocol):
    """Opens streams to a side-car; every failure is a ``ServerError``."""

    @property
    def url(self) -> str:
        """Address of the side-car, for messages."""

    def refine(self, request: RefineRequest, *, timeout: float | None) -> Generator[Message, None, None]:
        """Give what the side-car says, for at most ``timeout`` seconds; closing the generator cancels the job."""

    def close(self) -> None:
        """Let go of the connection."""


class AsyncRefineTransport(Protocol):
    """``RefineTransport`` with an asynchronous generator."""

    @property
    def url(self) -> str:
        """Address of the side-car, for messages."""

    def refine(self, request: RefineRequest, *, timeout: float | None) -> AsyncGenerator[Message, None]:
        """Give what the side-car says, for at most ``timeout`` seconds; closing the generator cancels the job."""

    async def close(self) -> None:
        """Let go of the connection."""
