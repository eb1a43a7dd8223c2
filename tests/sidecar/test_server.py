"""The side-car's process: start, health, reflection, metrics, TLS, the log, the command line."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from sidecar import cli
from sidecar.job import Engine
from sidecar.service import log, server
from sidecar.service.door import Door, ServeError, Tls
from sidecar.service.failures import Starting
from sidecar.service.metrics import OUTCOMES
from sidecar.service.server import ServiceSettings, printed
from sidecar.service.servicer import NAME
from tests.sidecar.fakes import LIMITS, FakeEngine, Running, asked, failure, free_port, kinds, running, until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def never(where: dict[str, object]) -> None:
    raise AssertionError(f"it serves: {where}")


async def served(load: object, settings: ServiceSettings, *, stopped: bool = False) -> int:
    stop = asyncio.get_running_loop().create_future()
    if stopped:
        stop.set_result(130)
    return await server.serve(load, settings, ready=never, stop=stop)  # type: ignore[arg-type]


def test_it_says_that_it_starts_until_it_has_loaded() -> None:
    loaded, engine = threading.Event(), FakeEngine()
    engine.go(10)

    def load() -> Engine:
        assert loaded.wait(60)
        return engine

    with running(load, port=free_port()) as side:
        assert side.health() == side.health(NAME) == NOT_SERVING
        assert failure(side.refine())[1:] == (UNAVAILABLE, Starting.sentence)
        loaded.set()
        side.wait_ready()
        assert side.health() == side.health(NAME) == SERVING
        assert until(side.refine(steps=2), "done").step == 2


def test_a_load_that_fails_ends_it() -> None:
    def load() -> Engine:
        raise LookupError("no weights")

    with pytest.raises(LookupError, match="no weights"):
        asyncio.run(served(load, ServiceSettings(port=0, metrics_port=0)))


def test_a_start_can_be_stopped() -> None:
    loading, stopped = threading.Event(), threading.Event()

    def load() -> Engine:
        loading.set()
        assert stopped.wait(60)
        return FakeEngine()

    assert asyncio.run(served(load, ServiceSettings(port=0, metrics_port=0), stopped=True)) == 130
    assert loading.wait(60)
    # Nobody needs what it loads any more.
    thread = next(thread for thread in threading.enumerate() if thread.name.startswith("load"))
    stopped.set()
    thread.join(60)


@pytest.mark.parametrize(
    ("field", "sentence"), [("port", "cannot listen on {}"), ("metrics_port", "cannot serve metrics on {}")]
)
def test_a_taken_port_is_no_start(field: str, sentence: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = taken.getsockname()[1]
        settings = ServiceSettings(**{"port": 0, "metrics_port": 0, field: where})
        with pytest.raises(ServeError, match=sentence.format(f"127.0.0.1:{where}")):
            asyncio.run(served(FakeEngine, settings))


def test_ipv6_has_brackets() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    with running(address="::1") as side:
        assert re.fullmatch(r"\[::1\]:\d+", side.url)
        side.engine.go(10)
        assert until(side.refine(steps=2), "done").step == 2
        assert side.outcomes() == {"steps": 1}


def test_reflection_names_and_describes_the_services() -> None:
    with running() as side:
        stub = reflection_pb2_grpc.ServerReflectionStub(side.channel)
        asks = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=NAME),
        ]
        names, file = stub.ServerReflectionInfo(iter(asks), timeout=30)
        assert {service.name for service in names.list_services_response.service} == {
            NAME,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        assert file.file_descriptor_response.file_descriptor_proto[0] == pb.DESCRIPTOR.serialized_pb


def test_the_metrics_page_has_every_metric_from_the_start() -> None:
    with running() as side:
        page = side.metrics()
        for outcome in OUTCOMES:
            assert f'refine_jobs_total{{outcome="{outcome}"}} 0.0\n' in page
        names = set(re.findall(r"^# TYPE (\w+) (?:counter|histogram|gauge)$", page, flags=re.MULTILINE))
        assert {name for name in names if not name.endswith("_created")} == {
            "refine_jobs_total",
            "refine_steps_total",
            "refine_unread_total",
            "refine_queue_depth",
            "refine_active_jobs",
            "refine_batch_jobs",
            "refine_job_seconds",
            "refine_step_seconds",
        }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server.pem, client.pem and other.pem with their keys; each is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is not here")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client", "other"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module", params=["tls", "mutual"])
def locked(request: pytest.FixtureRequest, certificates: Path) -> Iterator[tuple[str, Running]]:
    authority = certificates / "client.pem" if request.param == "mutual" else None
    tls = Tls(certificate=certificates / "server.pem", key=certificates / "server.key", client_ca=authority)
    with running(door=Door(tls=tls)) as side:
        side.engine.go(1000)
        yield request.param, side


def status(side: Running, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode | None:
    """How one small job ends over a connection of its own, None for well."""
    channel = (
        grpc.secure_channel(side.url, credentials, LIMITS) if credentials else grpc.insecure_channel(side.url, LIMITS)
    )
    with channel:
        try:
            events = list(refine_pb2_grpc.RefinementStub(channel).Refine(asked(steps=1), timeout=60))
        except grpc.RpcError as problem:
            return problem.code()  # type: ignore[attr-defined,no-any-return]
    assert kinds(events)[-1] == "done"
    return None


def test_only_who_may_is_answered(locked: tuple[str, Running], certificates: Path) -> None:
    kind, side = locked
    ca, key, chain = ((certificates / name).read_bytes() for name in ("server.pem", "client.key", "client.pem"))
    strange_key, strange_chain = ((certificates / name).read_bytes() for name in ("other.key", "other.pem"))
    refused = UNAVAILABLE if kind == "mutual" else None
    assert status(side, grpc.ssl_channel_credentials(ca, key, chain)) is None
    assert status(side, None) == UNAVAILABLE
    assert status(side, grpc.ssl_channel_credentials(strange_chain, key, chain)) == UNAVAILABLE
    assert status(side, grpc.ssl_channel_credentials(ca)) == refused
    assert status(side, grpc.ssl_channel_credentials(ca, strange_key, strange_chain)) == refused


def test_a_certificate_that_cannot_be_read_is_no_start(tmp_path: Path) -> None:
    tls = Tls(certificate=tmp_path / "nothing.pem", key=tmp_path / "nothing.key")
    with pytest.raises(ServeError, match=r"cannot read `\S+nothing\.key`: No such file or directory$"):
        asyncio.run(served(FakeEngine, ServiceSettings(port=0, metrics_port=0, door=Door(tls=tls))))


@pytest.mark.parametrize(
    "wrong",
    [{"certificate": "garbage"}, {"key": "garbage"}, {"client_ca": "garbage"}, {"key": "other.key", "client_ca": None}],
)
def test_a_certificate_that_is_none_or_without_its_key_is_no_start(
    wrong: dict[str, str | None], certificates: Path
) -> None:
    (certificates / "garbage").write_text("garbage")
    files = {"certificate": "server.pem", "key": "server.key", "client_ca": "client.pem", **wrong}
    tls = Tls(**{name: certificates / file for name, file in files.items() if file})
    with pytest.raises(ServeError, match=r"the certificate is unusable$"):
        asyncio.run(served(FakeEngine, ServiceSettings(port=0, metrics_port=0, door=Door(tls=tls))))


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The side-car's logger, whose configuration is taken back at the end."""
    kept = logging.getLogger("sidecar")
    before = kept.handlers[:], kept.level, kept.propagate
    yield kept
    kept.handlers[:], kept.level, kept.propagate = before


@pytest.mark.usefixtures("logger")
def test_the_log_names_requests_but_not_their_content(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    with running() as side:
        side.engine.go(10)
        until(side.refine(steps=2, request_id="mine"), "done")
        failure(side.refine(steps=2, preset="failing"))
        side.drain()
        side.join()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines if line.get("request_id") == "mine"] == [
        "job queued",
        "job started",
        "job ended",
    ]
    assert all({"time", "level", "event"} <= set(line) for line in lines)
    values = [value for line in lines for value in line.values()]
    assert all(isinstance(value, (str, int, float)) and len(str(value)) < 2000 for value in values)
    failed = next(line for line in lines if line["level"] == "error")
    assert "RuntimeError: out of memory" in failed["exception"]
    # The server's own id, of a request without one.
    assert re.fullmatch(r"[0-9a-f]{16}", failed["request_id"])
    assert [line["event"] for line in lines][-2:] == ["draining", "stopped"]


def test_the_log_is_text_for_people(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    logger.info("job ended", extra={"request_id": "r1", "outcome": "steps"})
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 info job ended request_id=r1 outcome=steps\n"
    assert re.fullmatch(line, capsys.readouterr().err)


def sidecar(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--batch", "0"), "'0' is not a number from 1 to 1024"),
        (("--slice", "x"), "'x' is not a number from 1 to 1024"),
        (("--queue", "-1"), "'-1' is not a number from 0 to 1024"),
        (("--port", "70000"), "'70000' is not a number from 0 to 65535"),
        (("--grace", "-1"), "'-1' is not a number of seconds"),
        (("--grace", "nan"), "'nan' is not a number of seconds"),
        (("--device", "tpu"), "invalid choice: 'tpu'"),
        (("--tls-cert", "x"), "--tls-cert and --tls-key must be given together"),
        (("--tls-key", "x"), "--tls-cert and --tls-key must be given together"),
        (("--tls-client-ca", "x"), "--tls-client-ca needs both"),
        (("extra",), "unrecognized arguments: extra"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_a_start_that_fails_exits_with_1_and_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = sidecar("--port", str(port), "--metrics-port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    sentence = f"error: cannot listen on 127.0.0.1:{port}: the address is in use or the certificate is unusable"
    # gRPC may write lines of its own.
    assert done.stderr.splitlines()[-1] == sentence


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    for action in cli.parser()._actions:
        assert action.help, action.dest
        assert all(option in said.out for option in action.option_strings)
    for default in ("127.0.0.1", "8003", "8004", "ffhq"):
        assert f"(default: {default})" in " ".join(said.out.split())


def test_it_says_where_it_listens() -> None:
    where: dict[str, object] = {"grpc": "127.0.0.1:1", "metrics": "http://127.0.0.1:2/metrics", "pid": 3}
    assert json.loads(printed(where, as_json=True)) == where
    assert "127.0.0.1:1" in printed(where, as_json=False)
