"""OpenTelemetry traces from the client through Triton to the side-car (W3C ``traceparent``).

Without an endpoint in the standard variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, or ``..._TRACES_ENDPOINT``) or without
the extra ``otel``, opentelemetry-api's own no-op tracer is used. Spans name models and requests, never photos.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from opentelemetry.trace import Span

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
Kind = Literal["internal", "client", "server"]
# An unreachable collector must not keep a command from ending.
_PATIENCE_S: Final = 2


class Tracing:
    """The spans of one service of this process; ``--help`` does without the import.

    Args:
        service: its name in traces.
    """

    def __init__(self, service: str) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace, self._propagator = trace, TraceContextTextMapPropagator()
        self._provider = _provider(service)
        self._tracer = (self._provider or trace.NoOpTracerProvider()).get_tracer("unaligned")

    def start(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        carrier: Mapping[str, str] | None = None,
        **attributes: str | int | float,
    ) -> Span:
        """Start a span without making it the current one; the caller ends it.

        Args:
            name: the span's name.
            kind: the side of a call.
            carrier: headers that may name the parent; by default the parent is the current span.
            attributes: the span's attributes.
        """
        context = None if carrier is None else self._propagator.extract(dict(carrier))
        found = self._trace.SpanKind[kind.upper()]
        span: Span = self._tracer.start_span(name, context=context, kind=found, attributes=attributes)
        return span

    @contextmanager
    def span(self, name: str, *, kind: Kind = "internal", **attributes: str | int | float) -> Iterator[None]:
        """The current span while the block runs; an exception marks it as failed, by its type's name alone."""
        span = self.start(name, kind=kind, carrier=None, **attributes)
        try:
            with self._trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as problem:
            self.end(span, failed=type(problem).__name__)
            raise
        self.end(span)

    def end(self, span: Span, *, failed: str = "") -> None:
        """End a span, as failed if ``failed`` says why."""
        if failed:
            span.set_status(self._trace.StatusCode.ERROR, failed)
        span.end()

    def headers(self) -> dict[str, str]:
        """Headers that make a request a child of the current span."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


@cache
def tracing(service: str) -> Tracing:
    """The process's tracing of a service."""
    return Tracing(service)


def _provider(service: str) -> Any:
    if not any(os.environ.get(name) for name in ENDPOINTS) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return None
    # Trouble with a collector must not reach the user's terminal.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    own = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(own))
    named = any(name.endswith("_TIMEOUT") and name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
    exporter = OTLPSpanExporter() if named else OTLPSpanExporter(timeout=_PATIENCE_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
