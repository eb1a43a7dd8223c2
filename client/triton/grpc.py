"""Triton over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonclient.grpc import aio as library

from client.triton.codec import answered, asked, config_of, connection, explained, sent
from client.triton.transport import Array, ModelConfig, ServerInfo
from client.wire.access import Access
from client.wire.channel import checked_url
from client.wire.request_id import request_id


class AsyncTritonTransport:
    """An ``AsyncTransport`` to Triton's gRPC endpoint; its channel opens with the first request.

    Args:
        url: ``host:port``.
        access: how to connect; plain text by default.

    Raises:
        ParameterError: the URL is malformed, or the access cannot be used.
    """

    def __init__(self, url: str, access: Access | None = None) -> None:
        self.url = checked_url(url)
        self._headers, self._arguments = connection(self.url, access or Access())
        self._opened: Any = None

    async def live(self, *, timeout: float) -> bool:
        """See ``AsyncTransport.live``."""
        with explained(self.url, timeout):
            return bool(await self._client.is_server_live(headers=self._headers, client_timeout=timeout))

    async def ready(self, model: str = "", *, timeout: float) -> bool:
        """See ``AsyncTransport.ready``."""
        with explained(self.url, timeout, model=model):
            options = {"headers": self._headers, "client_timeout": timeout}
            if not model:
                return bool(await self._client.is_server_ready(**options))
            return bool(await self._client.is_model_ready(model, **options))

    async def server(self, *, timeout: float) -> ServerInfo:
        """See ``AsyncTransport.server``."""
        with explained(self.url, timeout):
            raw = await self._client.get_server_metadata(headers=self._headers, client_timeout=timeout)
        return ServerInfo(name=raw.name, version=raw.version)

    async def versions(self, model: str, *, timeout: float) -> tuple[str, ...]:
        """See ``AsyncTransport.versions``."""
        with explained(self.url, timeout, model=model):
            raw = await self._client.get_model_metadata(model, headers=self._headers, client_timeout=timeout)
        return tuple(raw.versions)

    async def config(self, model: str, *, timeout: float) -> ModelConfig:
        """See ``AsyncTransport.config``."""
        with explained(self.url, timeout, model=model):
            raw = await self._client.get_model_config(model, headers=self._headers, client_timeout=timeout)
        return config_of(raw.config)

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout: float
    ) -> dict[str, Array]:
        """See ``AsyncTransport.infer``."""
        with explained(self.url, timeout, model=model, runs=True) as trace:
            raw = await self._client.infer(
                model,
                sent(inputs),
                outputs=asked(outputs),
                request_id=request_id(),
                headers={**self._headers, **trace},
                client_timeout=timeout,
            )
        return answered(raw, outputs, model)

    async def close(self) -> None:
        """Close the channel."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    @property
    def _client(self) -> Any:
        if self._opened is None:
            self._opened = library.InferenceServerClient(self.url, **self._arguments)
        return self._opened
