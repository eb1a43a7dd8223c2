"""Secrets for a development set-up: an authority, certificates of a server and of a client, and two tokens.

``DIR/server`` holds ``tls.crt``, ``tls.key``, ``ca.crt``, ``token`` and ``admin-token``, which ``server/hardened.args``
names; ``DIR/client`` holds what its clients need, and a ``client.toml`` for ``client --config``. The authority's key is
not kept.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.errors import SecretsError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

SERVER: Final = ("tls.crt", "tls.key", "ca.crt", "token", "admin-token")
ARGUMENTS: Final = Path(__file__).with_name("hardened.args")
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_DAYS: Final = 365
_CONFIGURATION: Final = """\
tls-ca = "ca.crt"
tls-cert = "tls.crt"
tls-key = "tls.key"
token = "@token"
"""


def checked(folder: Path) -> Path:
    """Return a folder of a server's secrets, made absolute.

    Raises:
        SecretsError: a file is missing or empty, or a token cannot be an option of Triton.
    """
    for name in SERVER:
        try:
            content = (folder / name).read_bytes()
        except OSError as problem:
            raise SecretsError(f"cannot read the secret `{folder / name}`: {problem.strerror}") from problem
        if not content.strip():
            raise SecretsError(f"the secret `{folder / name}` is empty")
    for name in ("token", "admin-token"):
        token = (folder / name).read_text(errors="replace").strip()
        if not (token.isascii() and token.isprintable() and not set(token) & set(' ,"')):
            raise SecretsError(
                f"cannot use the token in `{folder / name}`: only printable ASCII without spaces, commas and quotes"
            )
    return folder.absolute()


def triton_arguments(folder: Path) -> list[str]:
    """The options of ``server/hardened.args`` for a folder of secrets.

    Raises:
        SecretsError: the folder is not whole.
    """
    where = checked(folder)
    values = {
        "@SECRETS@": str(where),
        "@TOKEN@": (where / "token").read_text().strip(),
        "@ADMIN_TOKEN@": (where / "admin-token").read_text().strip(),
    }
    arguments = []
    for line in ARGUMENTS.read_text().splitlines():
        if line and not line.startswith("#"):
            for name, value in values.items():
                line = line.replace(name, value)  # noqa: PLW2901 - the line, filled in
            arguments.append(line)
    return arguments


def client_environment(folder: Path) -> dict[str, str]:
    """Variables that let a client on this machine in, with the server's own certificate and token."""
    return {
        "UNALIGNED_TLS_CA": str(folder / "ca.crt"),
        "UNALIGNED_TLS_CERT": str(folder / "tls.crt"),
        "UNALIGNED_TLS_KEY": str(folder / "tls.key"),
        "UNALIGNED_TOKEN": f"@{folder / 'token'}",
    }


def make(folder: Path, names: Sequence[str] = ()) -> None:
    """Make the secrets of a server and of its clients.

    Args:
        folder: created; must not exist, or be empty.
        names: hosts and addresses of the server, besides those of this machine.

    Raises:
        SecretsError: the folder is not empty, or the package cryptography is missing.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise SecretsError("the package cryptography is missing: run `pip install 'unaligned[server]'`") from error
    if folder.exists() and any(folder.iterdir()):
        raise SecretsError(f"`{folder}` is not empty: name a new folder for the secrets")
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("unaligned development authority", root_key.public_key(), root_key, None)
    token, admin_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    for role in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = (*LOCAL, *names) if role == "server" else ()
        certificate = _certificate(f"unaligned {role}", key.public_key(), root_key, root, hosts)
        files = {"tls.crt": _pem(certificate), "tls.key": _key(key), "ca.crt": _pem(root), "token": token.encode()}
        files |= {"admin-token": admin_token.encode()} if role == "server" else {"client.toml": _CONFIGURATION.encode()}
        place = folder / role
        place.mkdir(parents=True, mode=0o700)
        for name, content in files.items():
            public = name.endswith((".crt", ".toml"))
            (place / name).touch(mode=0o644 if public else 0o600, exist_ok=False)
            (place / name).write_bytes(content)


def _certificate(
    name: str,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    hosts: Sequence[str] = (),
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now, root = datetime.now(UTC), issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # Clocks differ a little.
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=root, path_length=0 if root else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not root,
                key_cert_sign=root,
                crl_sign=root,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not root:
        # The launcher asks the server whether it is ready by the server's own certificate.
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _host(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise SecretsError(f"`{host}` is not a host name or an address") from error


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
