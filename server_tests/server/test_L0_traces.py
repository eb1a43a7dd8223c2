"""One trace from the client through Triton to the side-car, and one request id in all of their logs."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.grpc import InferInput

from client.errors import ServerError
from client.triton.grpc_sync import TritonTransport
from client.wire.request_id import SERVICE, named
from protocol.tracing import ENDPOINTS, tracing
from server.triton import LocalTriton
from server_tests import tiny_repository as tiny
from server_tests.processes import eventually
from tests.client.calls import Infer, ask


class Collector:
    """Receives spans from OTLP exporters: name, service, trace, id and parent of each."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.spans += spans(body, is_json="json" in self.headers["Content-Type"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, *names: str) -> dict[str, dict[str, Any]]:
        """Wait for the spans with these names."""
        if eventually(lambda: set(names) <= {span["name"] for span in self.spans}):
            return {span["name"]: span for span in self.spans if span["name"] in names}
        raise AssertionError(f"no {names} in {[span['name'] for span in self.spans]}")


def spans(body: bytes, *, is_json: bool) -> list[dict[str, Any]]:
    found = []
    if is_json:
        for resource in json.loads(body)["resourceSpans"]:
            service = {a["key"]: a["value"].get("stringValue") for a in resource["resource"]["attributes"]}
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                ids = {"trace": span["traceId"], "id": span["spanId"], "parent": span.get("parentSpanId", "")}
                found.append({"name": span["name"], "service": service["service.name"], **ids})
        return found
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = {a.key: a.value.string_value for a in resource.resource.attributes}
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            ids = {"trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex()}
            attributes = {a.key: a.value.string_value for a in span.attributes}
            found.append({"name": span.name, "service": service["service.name"], **ids, "attributes": attributes})
    return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    repository = tmp_path_factory.mktemp("repository")
    tiny.add_one(repository)
    tiny.pick(repository)
    with LocalTriton(repository, http_port=None, metrics_port=None, traces=collector.url, grace=0) as started:
        yield started


@pytest.fixture
def traced(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Send the traces of this process as well."""
    monkeypatch.setenv(ENDPOINTS[0], collector.url)
    tracing.cache_clear()
    yield collector
    tracing(SERVICE).close()
    tracing.cache_clear()


def test_tritons_spans_are_children_of_the_clients(server: LocalTriton, traced: Collector) -> None:
    transport = TritonTransport(server.url)
    with tracing(SERVICE).span("asked", request_id="r1"):
        ask(transport, Infer("add_one", {"x": np.zeros((1, 4), np.float32)}, ("y",)), timeout=20)
    transport.close()
    tracing(SERVICE).close()
    found = traced.wait("asked", "infer add_one", "InferRequest")
    root, call, served = (found[name] for name in ("asked", "infer add_one", "InferRequest"))
    assert {root["trace"], call["trace"], served["trace"]} == {root["trace"]}
    assert (call["parent"], served["parent"]) == (root["id"], call["id"])
    assert (root["service"], call["service"], served["service"]) == (SERVICE, SERVICE, "triton")
    assert root["attributes"] == {"request_id": "r1"}


def test_requests_without_a_trace_are_not_traced(server: LocalTriton, traced: Collector) -> None:
    transport = TritonTransport(server.url)
    call = Infer("pick", {"index": np.zeros((1, 1), np.int64)}, ("y",))
    before = [span["id"] for span in traced.spans]
    with named("untraced"):
        for _ in range(3):
            transport._client.infer("pick", _tensors(call))
    with tracing(SERVICE).span("last"):
        ask(transport, call, timeout=20)
    transport.close()
    tracing(SERVICE).close()
    # What was sent before it would have come before it.
    traced.wait("last", "infer pick", "pick")
    served = [span for span in traced.spans if span["id"] not in before and span["name"] == "InferRequest"]
    assert len(served) == 1


def _tensors(call: Infer) -> list[InferInput]:
    tensor = InferInput("index", [1, 1], "INT64")
    tensor.set_data_from_numpy(call.inputs["index"])
    return [tensor]


def test_tritons_log_names_the_request(server: LocalTriton) -> None:
    transport = TritonTransport(server.url)
    with named("request-of-a-test"), pytest.raises(ServerError):
        ask(transport, Infer("pick", {"index": np.full((1, 1), 99, np.int64)}, ("y",)), timeout=20)
    transport.close()
    assert eventually(lambda: "[request id: request-of-a-test]" in server.log_path.read_text())


SIDECAR = """
import asyncio, sys
from tests.sidecar.fakes import running, asked
from protocol import refine_pb2_grpc
from client.wire.request_id import SERVICE
from protocol.tracing import tracing
import grpc
with running() as side:
    side.engine.go(100)
    with tracing(SERVICE).span("command"), grpc.insecure_channel(side.url) as channel:
        headers = tuple(tracing(SERVICE).headers().items())
        list(refine_pb2_grpc.RefinementStub(channel).Refine(asked(steps=1, request_id="r2"), metadata=headers))
tracing(SERVICE).close()
"""


def test_the_side_cars_span_is_a_child_of_the_clients(collector: Collector) -> None:
    environment = {**os.environ, ENDPOINTS[0]: collector.url}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", SIDECAR], cwd=root, env=environment, check=True, timeout=120)
    found = collector.wait("command", "refine")
    assert found["refine"]["parent"] == found["command"]["id"]
    assert found["refine"]["service"] == "unaligned-sidecar"
    assert found["refine"]["attributes"]["request_id"] == "r2"


def test_a_command_survives_a_missing_collector(tmp_path: Path) -> None:
    environment = {**os.environ, ENDPOINTS[0]: "http://127.0.0.1:9/v1/traces"}
    began = time.monotonic()
    command = [sys.executable, "-m", "client", "status", "--url", "127.0.0.1:9", "--timeout", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "error: no Triton server answers at 127.0.0.1:9\n"
    assert time.monotonic() - began < 30


def test_tracing_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing.cache_clear()
    with tracing(SERVICE).span("nothing"):
        assert tracing(SERVICE).headers() == {}
    with suppress(grpc.RpcError):
        tracing(SERVICE).close()
    tracing.cache_clear()
