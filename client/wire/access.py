"""How a client gets in: TLS, its own certificate, and its token."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.atomic import read_bounded
from client.errors import AccessDenied, ParameterError
from client.text import quoted

if TYPE_CHECKING:
    import grpc

# The header of Triton's restricted protocols; `server/hardened.args` names it unaligned-token.
TRITON_HEADER: Final = "triton-grpc-protocol-unaligned-token"
SIDECAR_HEADER: Final = "authorization"
_MAX_BYTES: Final = 2**20
_MAX_TOKEN: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to connect to Triton and to the side-car; plain text and no token by default.

    Attributes:
        tls: connect with TLS; implied by the files.
        ca: PEM file of the CAs to trust; gRPC's own list by default.
        certificate, key: PEM files of the client's own certificate, for servers that ask for one.
        token: sent with every request; never without TLS to another machine.

    Raises:
        ParameterError: on creation, when a certificate comes without its key, a key without its certificate, or the
            token cannot be sent.
    """

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ParameterError("a client certificate needs its key: pass both --tls-cert and --tls-key, or neither")
        if self.token is not None and not (
            0 < len(self.token) <= _MAX_TOKEN and self.token.isascii() and self.token.isprintable()
        ):
            raise ParameterError(f"invalid token: expected 1 to {_MAX_TOKEN} printable ASCII characters")

    @property
    def secure(self) -> bool:
        """Whether connections use TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    def checked(self, url: str) -> None:
        """Check that the token may be sent to ``host:port``.

        Raises:
            ParameterError: it could be read on the way.
        """
        if self.token is not None and not self.secure and not is_local(url):
            raise ParameterError(f"a token needs TLS on the way to another machine: pass --tls or --tls-ca for {url}")

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return gRPC's credentials; None is plain text.

        Raises:
            ParameterError: a file cannot be read, or is not PEM.
        """
        if not self.secure:
            return None
        import grpc  # slow to import, and not needed by commands that ask no server

        return grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.certificate))

    def absolute(self) -> Access:
        """Return the same for processes with other working directories."""
        ca, certificate, key = (path and path.absolute() for path in (self.ca, self.certificate, self.key))
        return replace(self, ca=ca, certificate=certificate, key=key)

    def triton_headers(self) -> dict[str, str]:
        """Return the headers of every request to Triton."""
        return {} if self.token is None else {TRITON_HEADER: self.token}

    def sidecar_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of every request to the side-car."""
        return () if self.token is None else ((SIDECAR_HEADER, f"Bearer {self.token}"),)


def token_of(text: str) -> str:
    """Return the token that a text names: itself, or with ``@FILE`` what the file holds.

    Raises:
        ParameterError: the file cannot be read.
    """
    if not text.startswith("@"):
        return text
    try:
        return read_bounded(text[1:], limit=_MAX_BYTES, error=ParameterError).decode().strip()
    except UnicodeDecodeError as problem:
        raise ParameterError(f"cannot read a token from {quoted(text[1:])}: not text") from problem


def denied(message: str, url: str) -> AccessDenied | None:
    """Return the error behind a connection that gRPC could not make for lack of trust; None for other reasons."""
    lowered = message.lower()
    if "protocol is restricted" in lowered:
        return AccessDenied(f"the server at {url} rejected the token, or wants one: see --token")
    if "handshake" not in lowered:
        return None
    if "wrong_version_number" in lowered:
        return AccessDenied(f"the server at {url} does not use TLS: leave out --tls")
    if "hostname" in lowered or "peer name" in lowered:
        return AccessDenied(f"the certificate of the server at {url} is for another host")
    if "certificate_verify_failed" in lowered:
        return AccessDenied(f"the certificate of the server at {url} is not signed by a trusted CA: see --tls-ca")
    return AccessDenied(f"the TLS handshake with the server at {url} failed")


def is_closed(message: str) -> bool:
    """Whether a server closes connections before a request, as one does that wants TLS or a certificate."""
    return "failed to connect" in message and "Socket closed" in message


def is_local(url: str) -> bool:
    """Whether ``host:port`` is on this machine: ``localhost``, or a loopback address."""
    host = url.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    content = read_bounded(path, limit=_MAX_BYTES, error=ParameterError)
    if b"-----BEGIN " not in content:
        raise ParameterError(f"cannot read {quoted(path)}: not a PEM file")
    return content
