"""Free TCP ports."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the range that the kernel uses for outgoing connections, one of which could take the port.
_LOWEST, _HIGHEST = 15000, 32000


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen on ``port`` (1-65535) of ``address`` right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            # Two sockets may share a port until one listens.
            probe.listen(1)
        except OSError:
            return False
        return True


def is_answered(address: str, port: int) -> bool:
    """Whether anything listens on ``port`` of ``address``."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def free_port(address: str, taken: set[int]) -> int:
    """Return a free port of ``address`` that is not in ``taken``, and add it there.

    Another process may still take it before it is used.

    Raises:
        OSError: none was found.
    """
    for _ in range(1000):
        port = random.randrange(_LOWEST, _HIGHEST)
        if port not in taken and is_free(address, port):
            taken.add(port)
            return port
    raise OSError(f"no free port on {address}")
