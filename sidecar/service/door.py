"""Who may use the side-car: TLS, client certificates and a token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

HEADER: Final = "authorization"
# Probes carry no token.
OPEN: Final = "/grpc.health.v1.Health/"
REFUSAL: Final = "The token is missing or wrong."
Next = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class ServeError(ValueError):
    """The side-car cannot start; the message says why in one line."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files in PEM form: the server's certificate and key; with ``client_ca``, clients must show a certificate too."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials for gRPC.

        Raises:
            ServeError: a file cannot be read.
        """
        pair = (_read(self.key), _read(self.certificate))
        ca = None if self.client_ca is None else _read(self.client_ca)
        return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)


@dataclass(frozen=True, kw_only=True)
class Door:
    """``tls``: None means plain text; ``token``: None lets in everyone who can connect."""

    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def locked(cls, folder: Path) -> Door:
        """The door of a folder of ``tls.crt``, ``tls.key``, ``ca.crt`` and ``token``.

        Raises:
            ServeError: the token is missing or cannot be one.
        """
        tls = Tls(certificate=folder / "tls.crt", key=folder / "tls.key", client_ca=folder / "ca.crt")
        tls.credentials()
        return cls(tls=tls, token=token_of(folder / "token"))

    def interceptors(self) -> tuple[grpc.aio.ServerInterceptor, ...]:
        """The interceptors to put before the services."""
        return () if self.token is None else (_TokenCheck(self.token),)


def token_of(path: Path) -> str:
    """The token in a file.

    Raises:
        ServeError: there is none.
    """
    token = _read(path).decode(errors="replace").strip()
    if not (token and token.isascii() and token.isprintable()):
        raise ServeError(f"no token in `{path}`: expected printable ASCII characters")
    return token


class _TokenCheck(grpc.aio.ServerInterceptor):
    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(self, continuation: Next, details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        if details.method.startswith(OPEN):
            return handler
        shown = [value for name, value in details.invocation_metadata or () if name == HEADER]
        if len(shown) == 1 and hmac.compare_digest(str(shown[0]).encode(), self._expected):
            return handler
        return _REFUSAL


async def _refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL)
    yield  # a stream, for gRPC


# A handler for a stream of requests, whatever the method takes: gRPC then reads nothing before the handler does.
_REFUSAL: Final[Any] = grpc.stream_stream_rpc_method_handler(_refuse)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ServeError(f"cannot read `{path}`: {exc.strerror}") from exc
