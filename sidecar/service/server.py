"""The side-car's process: the gRPC server with health and reflection, the metrics, start and end.

Raises `sidecar.service.door.ServeError`: an address is taken, a certificate cannot be used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protocol import refine_pb2_grpc
from protocol.tracing import tracing
from sidecar.job import Engine
from sidecar.service.batcher import Batcher
from sidecar.service.door import Door, ServeError
from sidecar.service.failures import Failures
from sidecar.service.intake import Intake
from sidecar.service.metrics import Meters
from sidecar.service.pages import Pages
from sidecar.service.servicer import LINGER_S, NAME, SERVICE, UNREAD_S, RefinementService

log = logging.getLogger("sidecar")

MESSAGE_BYTES = 64 * 2**20
# Calls of all kinds; jobs have a smaller bound.
_CALLS = 2048
_CHANNEL = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # A client may ping while a long step runs.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client that vanishes silently frees its slot.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """How the side-car serves.

    Attributes:
        address: to listen on.
        port: for gRPC; 0 picks a free one.
        metrics_port: for the HTTP pages; 0 picks a free one.
        batch: number of jobs that run at the same time.
        queue: number of jobs that may wait.
        slice_steps: steps per slice; jobs join and leave between slices.
        grace: seconds that streams get to finish after SIGTERM.
        unread: seconds that a result is kept for a client that does not read.
        door: who may connect.
    """

    address: str = "127.0.0.1"
    port: int = 8003
    metrics_port: int = 8004
    batch: int = 4
    queue: int = 32
    slice_steps: int = 5
    grace: float = 10.0
    unread: float = UNREAD_S
    door: Door = field(default_factory=Door)


async def serve(
    load: Callable[[], Engine],
    settings: ServiceSettings,
    *,
    ready: Callable[[dict[str, object]], None],
    stop: asyncio.Future[int],
) -> int:
    """Serve until ``stop`` is set.

    Args:
        load: builds a warm engine; called in its own thread.
        settings: how to serve.
        ready: called with the addresses once the server answers.
        stop: setting its result, the exit status, stops the server.

    Returns:
        The exit status.

    Raises:
        ServeError: an address is taken, or a certificate cannot be used.
        Exception: what ``load`` raises.
    """
    meters = Meters()
    service = RefinementService(meters, unread_s=settings.unread)
    # The door comes first: a caller who is not let in learns nothing about the request.
    intake = Intake(NAME, calls=settings.batch + settings.queue)
    interceptors = (*settings.door.interceptors(), Failures(NAME, meters), intake)
    server = grpc.aio.server(options=_CHANNEL, interceptors=interceptors, maximum_concurrent_rpcs=_CALLS)
    refine_pb2_grpc.add_RefinementServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if settings.door.token is None:
        reflection.enable_server_reflection((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    await _say(checks, serving=False)
    port = _listen(server, settings)
    pages = _pages(meters, settings, ready=lambda: service.is_open)
    try:
        await server.start()
        # A thread of its own: the process can exit while it runs.
        thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        loading = asyncio.get_running_loop().run_in_executor(thread, load)
        thread.shutdown(wait=False)
        waited: set[asyncio.Future[Any]] = {loading, stop}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            loading.cancel()
            return stop.result()
        engine = loading.result()
        batcher = Batcher(
            engine, batch=settings.batch, queue=settings.queue, slice_steps=settings.slice_steps, meters=meters
        )
        batcher.begin()
        service.open(engine, batcher)
        await _say(checks, serving=True)
        metrics_url = f"http://{_where(settings.address, pages.port)}/metrics"
        where = {"grpc": _where(settings.address, port), "metrics": metrics_url}
        log.info("serving", extra={**where, "domain": engine.domain, "generator": engine.generator})
        ready({**where, "pid": os.getpid()})

        status = await stop
        log.info("draining")
        service.close()
        batcher.stop_taking()  # before health says so: whoever reads it may count on it
        deadline = time.monotonic() + settings.grace
        await _say(checks, serving=False)
        # Streams need part of the time after their jobs have ended.
        await asyncio.to_thread(batcher.drain, max(settings.grace / 2, settings.grace - 2 * LINGER_S))
        await server.stop(max(0.0, deadline - time.monotonic()))
        log.info("stopped")
        return status
    finally:
        await server.stop(0)
        pages.close()
        await asyncio.to_thread(tracing(SERVICE).close)


def stopping_on_signals() -> asyncio.Future[int]:
    """A future of the running loop that SIGTERM resolves to 143 and SIGINT to 130."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        loop.add_signal_handler(number, _settle, stop, status)
    return stop


def _settle(stop: asyncio.Future[int], status: int) -> None:
    if not stop.done():
        stop.set_result(status)


def _where(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _listen(server: grpc.aio.Server, settings: ServiceSettings) -> int:
    where = _where(settings.address, settings.port)
    try:
        if settings.door.tls is None:
            return server.add_insecure_port(where)
        return server.add_secure_port(where, settings.door.tls.credentials())
    except RuntimeError as exc:
        raise ServeError(f"cannot listen on {where}: the address is in use or the certificate is unusable") from exc


def _pages(meters: Meters, settings: ServiceSettings, *, ready: Callable[[], bool]) -> Pages:
    try:
        return Pages(meters.registry, ready=ready, address=settings.address, port=settings.metrics_port)
    except OSError as exc:
        where = _where(settings.address, settings.metrics_port)
        raise ServeError(f"cannot serve metrics on {where}: {exc.strerror}") from exc


async def _say(checks: health.aio.HealthServicer, *, serving: bool) -> None:
    kind = health_pb2.HealthCheckResponse
    for name in ("", NAME):
        await checks.set(name, kind.SERVING if serving else kind.NOT_SERVING)


def printed(where: dict[str, object], *, as_json: bool) -> str:
    """The line that reports where the side-car listens."""
    if as_json:
        return json.dumps(where)
    return f"The side-car serves on grpc {where['grpc']}, metrics {where['metrics']}; Ctrl-C stops it."
