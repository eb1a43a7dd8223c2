"""Access in production: which credentials Triton and the side-car accept, and the errors without them."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from client.errors import AccessDenied, ServerError, ServerUnavailable
from client.triton.grpc_sync import TritonTransport
from client.wire.access import Access
from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from server.secrets import make
from server.triton import LocalTriton
from server_tests import tiny_repository as tiny
from server_tests.client.commands import client
from sidecar.service.door import Door
from tests.client.calls import AskConfig, AskLive, AskReady, AskServer, AskVersions, Call, Infer, ask
from tests.sidecar.fakes import Running, running

INFER = Infer("add_one", {"x": np.zeros((1, 4), np.float32)}, ("y",))
RESTRICTED: tuple[Call, ...] = (AskServer(), AskVersions("add_one"), AskConfig("add_one"), INFER)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets") / "ours"
    make(folder)
    make(folder.with_name("theirs"))
    return folder


@pytest.fixture(scope="module")
def server(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    repository = tmp_path_factory.mktemp("repository")
    tiny.add_one(repository)
    with LocalTriton(repository, http_port=None, secrets=secrets / "server", grace=0) as started:
        yield started


@pytest.fixture(scope="module")
def side(secrets: Path) -> Iterator[Running]:
    with running(door=Door.locked(secrets / "server")) as started:
        yield started


@pytest.fixture
def good(secrets: Path) -> Access:
    return access(secrets / "client")


def access(folder: Path) -> Access:
    token = (folder / "token").read_text()
    return Access(ca=folder / "ca.crt", certificate=folder / "tls.crt", key=folder / "tls.key", token=token)


def send(server: LocalTriton, call: Call, access: Access) -> Any:
    transport = TritonTransport(server.url, access)
    try:
        return ask(transport, call, timeout=20)
    finally:
        transport.close()


def test_valid_credentials_are_accepted(server: LocalTriton, good: Access) -> None:
    np.testing.assert_array_equal(send(server, INFER, good)["y"], np.ones((1, 4), np.float32))
    for call in RESTRICTED[:3]:
        assert send(server, call, good)


def test_health_needs_no_token(server: LocalTriton, good: Access) -> None:
    for call in (AskLive(), AskReady()):
        assert send(server, call, replace(good, token=None)) is True


@pytest.mark.parametrize("token", [None, "wrong"])
def test_nothing_runs_without_the_token(server: LocalTriton, good: Access, token: str | None) -> None:
    for call in RESTRICTED:
        with pytest.raises(AccessDenied, match="rejected the token, or wants one"):
            send(server, call, replace(good, token=token))


def test_connections_need_a_certificate(server: LocalTriton, good: Access, secrets: Path) -> None:
    theirs = access(secrets.with_name("theirs") / "client")
    for shut in (Access(), Access(ca=good.ca), replace(theirs, ca=good.ca)):
        with pytest.raises(ServerUnavailable, match="closes connections: it may want --tls, or --tls-cert"):
            send(server, AskLive(), shut)


def test_an_untrusted_server_is_rejected(server: LocalTriton, good: Access, secrets: Path) -> None:
    for shut in (replace(good, ca=secrets.with_name("theirs") / "client/ca.crt"), replace(good, ca=None)):
        with pytest.raises(AccessDenied, match="is not signed by a trusted CA"):
            send(server, AskLive(), shut)


def test_a_certificate_of_another_host_is_rejected(server: LocalTriton, good: Access) -> None:
    transport = TritonTransport(f"127.0.0.2:{server.url.rpartition(':')[2]}", good)
    with pytest.raises(ServerError):
        ask(transport, AskLive(), timeout=5)
    transport.close()


def test_administration_needs_the_admin_token(server: LocalTriton, good: Access, secrets: Path) -> None:
    keys = {"root_certificates": good.ca, "private_key": good.key, "certificate_chain": good.certificate}
    client = triton_grpc.InferenceServerClient(server.url, ssl=True, **{name: str(path) for name, path in keys.items()})
    calls = {
        "load_model": ("add_one",),
        "unload_model": ("add_one",),
        "get_model_repository_index": (),
        "get_inference_statistics": (),
        "get_trace_settings": (),
        "get_log_settings": (),
        "register_system_shared_memory": ("stolen", "/stolen", 16),
        "get_cuda_shared_memory_status": (),
    }
    for name, arguments in calls.items():
        with pytest.raises(InferenceServerException, match="unaligned-admin-token"):
            getattr(client, name)(*arguments, headers=good.triton_headers())
    admin = {"triton-grpc-protocol-unaligned-admin-token": (secrets / "server/admin-token").read_text()}
    assert client.get_log_settings(headers=admin)
    assert client.get_inference_statistics("add_one", headers=admin)
    with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed"):
        client.load_model("add_one", headers=admin)
    client.close()


def test_there_is_no_http(server: LocalTriton) -> None:
    assert server.http_url is None
    assert server.metrics_url is not None
    with urllib.request.urlopen(server.metrics_url) as page:
        assert b"nv_inference_request_success" in page.read()
    # Its port of metrics says nothing of anything else.
    with urllib.request.urlopen(server.metrics_url.replace("/metrics", "/v2/models/add_one")) as page:
        assert page.read() == b""


def refined(side: Running, access: Access) -> grpc.StatusCode | None:
    """The status of an empty job, which is INVALID_ARGUMENT if access is granted."""
    credentials = access.credentials()
    channel = grpc.secure_channel(side.url, credentials) if credentials else grpc.insecure_channel(side.url)
    with channel:
        call = refine_pb2_grpc.RefinementStub(channel).Refine(
            pb.RefineRequest(), timeout=20, metadata=access.sidecar_metadata()
        )
        try:
            list(call)
        except grpc.RpcError as problem:
            return problem.code()  # type: ignore[attr-defined,no-any-return]
    return None


def test_the_side_car_needs_the_same_credentials(side: Running, good: Access, secrets: Path) -> None:
    theirs = access(secrets.with_name("theirs") / "client")
    assert refined(side, good) == grpc.StatusCode.INVALID_ARGUMENT
    assert refined(side, replace(good, token=None)) == grpc.StatusCode.UNAUTHENTICATED
    assert refined(side, replace(good, token="wrong")) == grpc.StatusCode.UNAUTHENTICATED
    for shut in (Access(), Access(ca=good.ca), replace(theirs, ca=good.ca), replace(good, ca=theirs.ca)):
        assert refined(side, shut) == grpc.StatusCode.UNAVAILABLE


def test_the_side_cars_probes_need_no_token_and_its_reflection_is_off(side: Running, good: Access) -> None:
    with grpc.secure_channel(side.url, replace(good, token=None).credentials()) as channel:
        asked = health_pb2.HealthCheckRequest()
        status = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=20).status
        assert status == health_pb2.HealthCheckResponse.SERVING
        for metadata, code in ((), grpc.StatusCode.UNAUTHENTICATED), (good.sidecar_metadata(), None):
            method = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            with pytest.raises(grpc.RpcError) as caught:
                method(b"", timeout=20, metadata=metadata)
            assert caught.value.code() == (code or grpc.StatusCode.UNIMPLEMENTED)
    for path, says in ("live", "live\n"), ("ready", "ready\n"):
        with urllib.request.urlopen(side.metrics_url.replace("metrics", path)) as page:
            assert page.read().decode() == says


def test_the_command_line_reads_its_credentials_from_a_file(
    server: LocalTriton, secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("UNALIGNED_")]:
        monkeypatch.delenv(name)

    def status(*arguments: str) -> dict[str, Any]:
        done = client(tmp_path, "status", "--json", *arguments, url=server.url)
        # The models of a generator are not in this repository.
        assert done.returncode == 3, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert status("--config", str(secrets / "client/client.toml"))["server"]["version"]
    wrong = status("--config", str(secrets / "client/client.toml"), "--token", "wrong")
    assert wrong["error"]["kind"] == "AccessDenied"
    assert "closes connections" in status()["error"]["message"]
