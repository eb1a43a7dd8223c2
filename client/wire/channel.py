"""Addresses of gRPC servers, and the channels to them."""

from __future__ import annotations

from typing import Final

from client.errors import ParameterError
from client.text import quoted
from client.wire.access import is_local

# Eight images of 1024x1024 RGB are 24 MiB.
MAX_MESSAGE_BYTES: Final = 64 * 2**20
_CHANNEL: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The caller retries, and needs a channel that reconnects at once.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)


def checked_url(url: str) -> str:
    """Return the address when it is ``host:port``; raise ``ParameterError`` otherwise."""
    host, separator, port = url.rpartition(":")
    if not (separator and host and "/" not in url and url.isprintable() and " " not in url):
        raise ParameterError(
            f"invalid address {quoted(url)}: expected host:port of a gRPC endpoint, for example 127.0.0.1:8001"
        )
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ParameterError(f"invalid port {quoted(port)} in {quoted(url)}: expected 1 to 65535")
    return url


def channel_options(url: str) -> list[tuple[str, int]]:
    """Return the channel's options; connections to this machine bypass the environment's proxy."""
    return [*_CHANNEL, ("grpc.enable_http_proxy", 0)] if is_local(url) else list(_CHANNEL)
