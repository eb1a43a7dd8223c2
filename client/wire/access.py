"""How a client is let in: TLS, its own certificate, and its token."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.errors import AccessDenied, ParameterError
from client.files.atomic import shown

if TYPE_CHECKING:
    import grpc

# Triton compares the header of a restricted protocol, which `server/hardened.args` calls unaligned-token.
TRITON_HEADER: Final = "triton-grpc-protocol-unaligned-token"
SIDECAR_HEADER: Final = "authorization"
_MAX_BYTES: Final = 2**20
_MAX_TOKEN: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Access:
    """What the connections to Triton and to the side-car are made with; plain text and no token by default.

    Attributes:
        tls: connect by TLS; implied by the files.
        ca: PEM file of the authorities that the servers' certificates come from; gRPC's own list by default.
        certificate, key: PEM files of the client's own certificate, for servers that ask for one.
        token: is sent with every request; never without TLS to another machine.
    """

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check what can be told without the files.

        Raises:
            ParameterError: a certificate without its key or a key without its certificate, or the token cannot be sent.
        """
        if (self.certificate is None) != (self.key is None):
            raise ParameterError("A client's certificate and its key go together: give both, or neither.")
        if self.token is not None and not (
            0 < len(self.token) <= _MAX_TOKEN and self.token.isascii() and self.token.isprintable()
        ):
            raise ParameterError(f"A token is of 1 to {_MAX_TOKEN} printable ASCII characters.")

    @property
    def secure(self) -> bool:
        """Whether the connections are by TLS."""
        return self.tls or self.ca is not None or self.certificate is not None

    def checked(self, url: str) -> None:
        """Check that the token may be sent to an address.

        Raises:
            ParameterError: it would be readable on the way.
        """
        if self.token is not None and not self.secure and not is_local(url):
            raise ParameterError(f"A token is sent to another machine by TLS only: give --tls or --tls-ca for {url}.")

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What gRPC takes; None is plain text.

        Raises:
            ParameterError: a file cannot be read, or holds no PEM.
        """
        if not self.secure:
            return None
        import grpc  # takes a while, which commands that ask no server do without

        return grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.certificate))

    def absolute(self) -> Access:
        """The same for processes with other working directories."""
        files = {name: getattr(self, name) for name in ("ca", "certificate", "key")}
        return replace(self, **{name: path.absolute() for name, path in files.items() if path is not None})

    def triton_headers(self) -> dict[str, str]:
        """Of every request to Triton."""
        return {} if self.token is None else {TRITON_HEADER: self.token}

    def sidecar_metadata(self) -> tuple[tuple[str, str], ...]:
        """Of every request to the side-car."""
        return () if self.token is None else ((SIDECAR_HEADER, f"Bearer {self.token}"),)


def token_of(text: str) -> str:
    """The token that a text names: itself, or with ``@FILE`` what the file holds.

    Raises:
        ParameterError: the file cannot be read.
    """
    if not text.startswith("@"):
        return text
    try:
        return _bounded(Path(text[1:])).decode().strip()
    except UnicodeDecodeError:
        raise ParameterError(f"{shown(text[1:])} holds no token.") from None


def denied(message: str, url: str) -> AccessDenied | None:
    """What gRPC says of a connection that could not be made, where it was for want of trust; None otherwise."""
    lowered = message.lower()
    if "protocol is restricted" in lowered:
        return AccessDenied(f"The server at {url} wants a token, and this client has none or another one: see --token.")
    if "handshake" not in lowered:
        return None
    if "wrong_version_number" in lowered:
        return AccessDenied(f"The server at {url} speaks no TLS.")
    if "hostname" in lowered or "peer name" in lowered:
        return AccessDenied(f"The certificate of the server at {url} is for another host.")
    if "certificate_verify_failed" in lowered:
        return AccessDenied(f"The certificate of the server at {url} is of no authority that is trusted: see --tls-ca.")
    return AccessDenied(f"TLS with the server at {url} fails.")


def is_closed(message: str) -> bool:
    """Whether a server closes connections before a request: it may ask for TLS or a certificate, and not say so."""
    return "failed to connect" in message and "Socket closed" in message


def is_local(url: str) -> bool:
    """Whether ``host:port`` is of this machine."""
    host = url.rpartition(":")[0].strip("[]")
    return host in {"localhost", "::1"} or host.startswith("127.")


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    content = _bounded(path)
    if b"-----BEGIN " not in content:
        raise ParameterError(f"{shown(path)} is no PEM file.")
    return content


def _bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no path"
        raise ParameterError(f"{shown(path)} cannot be read: {reason}.") from None
    if len(content) > _MAX_BYTES:
        raise ParameterError(f"{shown(path)} is larger than a certificate, a key or a token is.")
    return content
