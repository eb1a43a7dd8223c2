"""Options of ``tritonserver``: protocols closed to others, and traces."""

from __future__ import annotations

import secrets

ADMIN_KEY = "unaligned-admin-token"
_DANGEROUS = "shared-memory,model-repository,trace,logging"


def closed(token: str) -> list[str]:
    """Close the protocols that a server on a shared machine must not offer, over gRPC and HTTP.

    Everyone can read the command line of a process, so a token in it protects nothing dangerous. Dangerous protocols
    need a value that no request can carry (it has line breaks) and, for gRPC, a key that HTTP/2 rejects (capitals).
    """
    shut = f"{secrets.token_urlsafe(32)}\n\n"
    return [
        f"--grpc-restricted-protocol={_DANGEROUS}:Unaligned-Shut={shut}",
        f"--grpc-restricted-protocol=statistics:{ADMIN_KEY}={token}",
        f"--http-restricted-api={_DANGEROUS}:Unaligned-Shut={shut}",
        f"--http-restricted-api=statistics:{ADMIN_KEY}={token}",
    ]


def tracing(url: str | None) -> list[str]:
    """Send the traces of traced requests to a collector; None turns them off."""
    if url is None:
        return []
    # Rate 0: only what comes with a trace's context.
    settings = ("mode=opentelemetry", "rate=0", "level=TIMESTAMPS")
    own = (f"opentelemetry,url={url}", "opentelemetry,resource=service.name=triton")
    return [f"--trace-config={setting}" for setting in (*settings, *own)]
