# Generated from triton/grpc.py by `python -m client.unasync`: edit that file.
"""Triton over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonclient import grpc as library

from client.triton.codec import answered, asked, config_of, connection, explained, sent
from client.triton.transport import Array, ModelConfig, ServerInfo
from client.wire.access import Access
from client.wire.channel import checked_url
from client.wire.request_id import request_id


class TritonTransport:
    """An ``Transport`` to Triton's gRPC endpoint; its channel opens with the first request.

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

    def live(self, *, timeout: float) -> bool:
        """See ``Transport.live``."""
        with explained(self.url, timeout):
            return bool(self._client.is_server_live(headers=self._headers, client_timeout=timeout))

    def ready(self, model: str = "", *, timeout: float) -> bool:
        """See ``Transport.ready``."""
        with explained(self.url, timeout, model=model):
            options = {"headers": self._headers, "client_timeout": timeout}
            if not model:
                return bool(self._client.is_server_ready(**options))
            return bool(self._client.is_model_ready(model, **options))

    def server(self, *, timeout: float) -> ServerInfo:
        """See ``Transport.server``."""
        with explained(self.url, timeout):
            raw = self._client.get_server_metadata(headers=self._headers, client_timeout=timeout)
        return ServerInfo(name=raw.name, version=raw.version)

    def versions(self, model: str, *, timeout: float) -> tuple[str, ...]:
        """See ``Transport.versions``."""
        with explained(self.url, timeout, model=model):
            raw = self._client.get_model_metadata(model, headers=self._headers, client_timeout=timeout)
        return tuple(raw.versions)

    def config(self, model: str, *, timeout: float) -> ModelConfig:
        """See ``Transport.config``."""
        with explained(self.url, timeout, model=model):
            raw = self._client.get_model_config(model, headers=self._headers, client_timeout=timeout)
        return config_of(raw.config)

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout: float
    ) -> dict[str, Array]:
        """See ``Transport.infer``."""
        with explained(self.url, timeout, model=model, runs=True) as trace:
            raw = self._client.infer(
                model,
                sent(inputs),
                outputs=asked(outputs),
                request_id=request_id(),
                headers={**self._headers, **trace},
                client_timeout=timeout,
            )
        return answered(raw, outputs, model)

    def close(self) -> None:
        """Close the channel."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _client(self) -> Any:
        if self._opened is None:
            self._opened = library.InferenceServerClient(self.url, **self._arguments)
        return self._opened
