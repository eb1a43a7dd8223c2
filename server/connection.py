"""Connections of the launcher to its own server."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def connect(url: str, secrets: Path | None) -> Any:
    """Open a ``tritonclient.grpc.InferenceServerClient``, with the certificates of a folder of secrets if given."""
    from tritonclient import grpc

    # The environment may name a proxy, which must not come between this machine and itself.
    arguments: dict[str, Any] = {"channel_args": [("grpc.enable_http_proxy", 0)]}
    if secrets:
        keys = {"root_certificates": "ca.crt", "private_key": "tls.key", "certificate_chain": "tls.crt"}
        arguments |= {"ssl": True} | {key: str(secrets / name) for key, name in keys.items()}
    return grpc.InferenceServerClient(url, **arguments)


def headers(secrets: Path | None, name: str = "token") -> dict[str, str]:
    """The header for ``token`` or ``admin-token`` of a folder of secrets; none without secrets."""
    if not secrets:
        return {}
    return {f"triton-grpc-protocol-unaligned-{name}": (secrets / name).read_text().strip()}
