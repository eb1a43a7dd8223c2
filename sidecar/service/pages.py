"""The side-car's pages, plain HTTP: ``/metrics`` for Prometheus, ``/live`` and ``/ready`` for probes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


class Pages:
    """A small server in its own thread.

    Args:
        registry: registry of the metrics.
        ready: asked for ``/ready``.
        address: to listen on.
        port: 0 is a free one.

    Raises:
        OSError: the address is taken.
    """

    def __init__(self, registry: CollectorRegistry, *, ready: Callable[[], bool], address: str, port: int) -> None:
        metrics: Any = make_wsgi_app(registry)

        def answer(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
            match environ.get("PATH_INFO"):
                case "/metrics":
                    found: Iterable[bytes] = metrics(environ, start)
                    return found
                case "/live":
                    return _said(start, "200 OK", "live")
                case "/ready" if ready():
                    return _said(start, "200 OK", "ready")
                case "/ready":
                    return _said(start, "503 Service Unavailable", "not ready")
                case _:
                    return _said(start, "404 Not Found", "/metrics, /live and /ready are here")

        kind = type("_Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in address else socket.AF_INET})
        self._server: WSGIServer = make_server(address, port, answer, server_class=kind, handler_class=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, name="pages", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    # A silent connection must not delay the end.
    timeout = 10

    def log_message(self, *_: Any) -> None:
        """Log nothing: the log is about jobs."""


def _said(start: StartResponse, status: str, text: str) -> list[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
