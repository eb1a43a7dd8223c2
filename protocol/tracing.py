"""OpenTelemetry's trace context, from the client through Triton to the side-car (W3C ``traceparent``).

Off unless the standard variables name an endpoint (``OTEL_EXPORTER_OTLP_ENDPOINT``, or ``..._TRACES_ENDPOINT``) and the
extra ``otel`` is installed. Spans name models and requests, never photos.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, Literal

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
Kind = Literal["internal", "client", "server"]
# A collector that is away must not keep a command from ending.
_PATIENCE_S: Final = 2


class Span:
    """Something that took time; without a tracer it is nothing."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def end(self, *, failed: str = "", **attributes: str | int | float) -> None:
        """It is over, perhaps with an error of this kind."""
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(StatusCode.ERROR, failed)
        self._span.end()


class Tracing:
    """The spans of one service of this process.

    Args:
        service: its name in the traces.
    """

    def __init__(self, service: str) -> None:
        self._provider = _provider(service)
        self._tracer = None if self._provider is None else self._provider.get_tracer("unaligned")

    def start(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        carrier: Mapping[str, str] | None = None,
        **attributes: str | int | float,
    ) -> Span:
        """Begin a span that is not the present one; the caller ends it.

        Args:
            name: of the span.
            kind: which side of a call it is.
            carrier: headers that may name the span it belongs to; by default it belongs to the present one.
            attributes: of the span.
        """
        if self._tracer is None:
            return Span()
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = None if carrier is None else TraceContextTextMapPropagator().extract(dict(carrier))
        return Span(
            self._tracer.start_span(name, context=context, kind=SpanKind[kind.upper()], attributes=dict(attributes))
        )

    @contextmanager
    def span(self, name: str, *, kind: Kind = "internal", **attributes: str | int | float) -> Iterator[None]:
        """The present span while the block runs; an exception ends it as failed, by the exception's name alone."""
        if self._tracer is None:
            yield
            return
        from opentelemetry.trace import use_span

        span = self.start(name, kind=kind, carrier=None, **attributes)
        try:
            with use_span(span._span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as problem:
            span.end(failed=type(problem).__name__)
            raise
        span.end()

    def headers(self) -> dict[str, str]:
        """The headers that make what is asked for belong to the present span."""
        carrier: dict[str, str] = {}
        if self._tracer is not None:
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            TraceContextTextMapPropagator().inject(carrier)
        return carrier

    def close(self) -> None:
        """Send what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


@cache
def tracing(service: str) -> Tracing:
    """The process's own of this service."""
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
    # What a collector does or does not is no business of who asked for an inversion.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    own = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: service}
    provider = TracerProvider(resource=Resource.create(own))
    named = any(name.endswith("_TIMEOUT") and name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
    exporter = OTLPSpanExporter() if named else OTLPSpanExporter(timeout=_PATIENCE_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
