from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from client import (
    AccessDenied,
    AnswerRefused,
    ModelMissing,
    ParameterError,
    RequestRejected,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
    Timeout,
)
from client.triton.grpc import AsyncTritonTransport
from client.triton.grpc_sync import TritonTransport
from client.triton.session import AsyncSession
from client.triton.session_sync import Session
from client.unasync import FOLDER, MODULES, generated
from client.wire.channel import channel_options, checked_url
from client.wire.retry import ATTEMPTS
from tests.client import fakes as client_fakes
from tests.client.calls import AskConfig, AskLive, AskReady, AskServer, AskVersions, Infer, Recorded, ask
from tests.client.fakes import FakeTriton, check_sentence, serving

PSI = Infer("ffhq_mapping", {"z": np.ones((1, 512), np.float32), "psi": np.full((1, 1), 0.5, np.float32)}, ("w",))


def send(url: str, call, *, timeout: float = 20.0, asynchronous: bool = False):
    """Send one call over a channel of its own."""
    if not asynchronous:
        transport = TritonTransport(url)
        with contextlib.closing(transport):
            return ask(transport, call, timeout=timeout)

    async def go():
        transport = AsyncTritonTransport(url)
        try:
            return await ask(transport, call, timeout=timeout)
        finally:
            await transport.close()

    return asyncio.run(go())


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_every_call_over_grpc(asynchronous):
    with serving(FakeTriton(missing=("ffhq_edit",), cuts=(4, 8, 16))) as url:
        assert send(url, AskLive(), asynchronous=asynchronous) is True
        assert send(url, AskReady(), asynchronous=asynchronous) is True
        assert send(url, AskReady("ffhq_fine"), asynchronous=asynchronous) is True
        assert send(url, AskReady("ffhq_edit"), asynchronous=asynchronous) is False
        assert send(url, AskServer(), asynchronous=asynchronous).version == "2.51.0"
        assert send(url, AskVersions("ffhq_fine"), asynchronous=asynchronous) == ("1",)
        for model in client_fakes.TABLE:
            if model != "edit":
                name = f"ffhq_{model}"
                assert send(url, AskConfig(name), asynchronous=asynchronous) == client_fakes.config(name)
        answer = send(url, PSI, asynchronous=asynchronous)
        np.testing.assert_array_equal(answer["w"], np.full((1, 512), 0.5, np.float32))


def test_missing_models(asynchronous):
    with serving(FakeTriton(missing=("ffhq_mapping",))) as url:
        for call in (PSI, AskConfig("ffhq_mapping"), AskVersions("ffhq_mapping"), AskConfig("nonsense")):
            with pytest.raises(ModelMissing, match=call.model):
                send(url, call, asynchronous=asynchronous)


def test_eight_large_images_come_through():
    large = np.arange(8 * 1024 * 1024 * 3, dtype=np.uint32).astype(np.uint8).reshape(8, 1024, 1024, 3)

    class Large(FakeTriton):
        def ModelInfer(self, request, context):
            response = super().ModelInfer(request, context)
            response.outputs[0].datatype = "UINT8"
            response.outputs[0].shape[:] = large.shape
            response.raw_output_contents[0] = large.tobytes()
            return response

    with serving(Large()) as url:
        np.testing.assert_array_equal(send(url, PSI)["w"], large)


def test_an_answer_whose_bytes_do_not_fill_its_shape(asynchronous):
    class Short(FakeTriton):
        def ModelInfer(self, request, context):
            response = super().ModelInfer(request, context)
            response.raw_output_contents[0] = response.raw_output_contents[0][:-4]
            return response

    class Silent(FakeTriton):
        def ModelInfer(self, request, context):
            response = super().ModelInfer(request, context)
            del response.outputs[:]
            return response

    for servicer in (Short(), Silent()):
        with serving(servicer) as url, pytest.raises(AnswerRefused, match="`w`"):
            send(url, PSI, asynchronous=asynchronous)


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Server is stopping", ServerUnavailable),
        (
            grpc.StatusCode.UNAVAILABLE,
            "Request for unknown model: 'ffhq_mapping' has no available versions",
            ModelMissing,
        ),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'ffhq_mapping' is not found", ModelMissing),
        (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input 'z'", RequestRejected),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too large", RequestRejected),
        (grpc.StatusCode.PERMISSION_DENIED, "This protocol is restricted", AccessDenied),
        (grpc.StatusCode.CANCELLED, "broken off", ServerUnavailable),
        (grpc.StatusCode.UNIMPLEMENTED, "no such method", ServerError),
        (
            grpc.StatusCode.INTERNAL,
            "Failed to process the request(s) for model 'm_0_0', message: Stub process 'm_0_0' is not healthy.",
            ServerUnavailable,
        ),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "in ensemble 'ffhq_edit', [request id: 1] expected 2 inputs but got 1 inputs for model 'ffhq_fine'. "
            "Got input(s) ['w_m_plus'], but missing required input(s) ['f']. Please provide all required input(s)",
            ServerUnavailable,
        ),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "[request id: 1] expected 2 inputs but got 1 inputs for model 'ffhq_fine'. "
            "Got input(s) ['w_m_plus'], but missing required input(s) ['f']. Please provide all required input(s)",
            RequestRejected,
        ),
        (grpc.StatusCode.INTERNAL, "onnxruntime:\nsome long\x07 trace", ServerError),
    ],
)
def test_errors_are_told_apart_in_one_sentence(code, details, kind, asynchronous):
    with (
        serving(FakeTriton(on_infer=lambda _, context: context.abort(code, details))) as url,
        pytest.raises(ServerError) as caught,
    ):
        send(url, PSI, asynchronous=asynchronous)
    assert type(caught.value) is kind
    check_sentence(caught.value)
    assert url in str(caught.value)


def test_a_slow_answer_is_a_timeout(asynchronous):
    def wait(_, context):
        done = client_fakes.threading.Event()
        context.add_callback(done.set)
        done.wait()

    with serving(FakeTriton(on_infer=wait)) as url, pytest.raises(ServerTimeout, match=r"0\.3 seconds"):
        send(url, PSI, timeout=0.3, asynchronous=asynchronous)


def test_no_server(closed_port, asynchronous):
    with pytest.raises(ServerUnavailable, match=closed_port):
        send(closed_port, AskLive(), asynchronous=asynchronous)


def test_a_server_that_is_not_triton(asynchronous):
    server = grpc.server(client_fakes.futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ServerError, match="not a Triton"):
            send(f"127.0.0.1:{port}", AskLive(), asynchronous=asynchronous)
    finally:
        server.stop(None).wait()


def test_a_server_that_dies_in_the_middle(asynchronous):
    command = [sys.executable, "-m", client_fakes.__name__]
    root = Path(client_fakes.__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        with pytest.raises(ServerUnavailable, match="went away"):
            send(url, PSI, asynchronous=asynchronous)
        assert process.wait() == 9


@pytest.mark.parametrize("url", ["localhost:8001", "127.0.0.1:1", "[::1]:65535", "a.b-c:80"])
def test_addresses(url):
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["", "localhost", ":8001", "http://localhost:8001", "localhost:0", "localhost:65536", "a b:1", "h:-1", "h:\u0661"],
)
def test_malformed_addresses(url):
    with pytest.raises(ParameterError):
        checked_url(url)


class Script(Recorded):
    """A transport whose answers are given; exceptions among them are raised."""

    url = "script"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.timeouts = []

    def send(self, _call, *, timeout):
        self.timeouts.append(timeout)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        pass


def persisted(transport, *, seconds: float):
    """Ask whether the server is live, as a session does with each of its requests."""
    return Session(transport, domain="ffhq", timeout=Timeout(request=seconds))._persist(transport.live)


def test_retries_wait_longer_each_time_within_one_deadline(clock):
    transport = Script(ServerUnavailable("1"), ServerUnavailable("2"), ServerUnavailable("3"), "answer")
    assert persisted(transport, seconds=10) == "answer"
    assert len(clock) == 3
    for attempt, pause in enumerate(clock):
        assert 0.05 * 2**attempt <= pause <= 0.1 * 2**attempt
    assert transport.timeouts == pytest.approx([10 - sum(clock[:n]) for n in range(4)])


@pytest.mark.usefixtures("clock")
def test_retries_end():
    transport = Script(*(ServerUnavailable(str(n)) for n in range(10)))
    with pytest.raises(ServerUnavailable, match=str(ATTEMPTS - 1)):
        persisted(transport, seconds=10)
    assert len(transport.timeouts) == ATTEMPTS


def test_no_retry_that_could_not_answer_in_time(clock):
    transport = Script(ServerUnavailable("1"), "answer")
    with pytest.raises(ServerUnavailable):
        persisted(transport, seconds=0.01)
    assert clock == []


@pytest.mark.parametrize("problem", [ServerTimeout, ModelMissing, RequestRejected, ServerError, AnswerRefused])
@pytest.mark.usefixtures("clock")
def test_only_unavailable_is_retried(problem):
    transport = Script(problem("once"), "answer")
    with pytest.raises(problem):
        persisted(transport, seconds=10)
    assert len(transport.timeouts) == 1


def test_retry_over_grpc(asynchronous):
    def shaky(servicer, context):
        if servicer.inferences < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Server is starting")

    servicer = FakeTriton(on_infer=shaky)
    with serving(servicer) as url:
        asked, options = (PSI.model, PSI.inputs, PSI.outputs), {"domain": "ffhq", "timeout": Timeout(request=20)}
        if asynchronous:

            async def go():
                transport = AsyncTritonTransport(url)
                try:
                    return await AsyncSession(transport, **options)._persist(transport.infer, *asked)
                finally:
                    await transport.close()

            answer = asyncio.run(go())
        else:
            transport = TritonTransport(url)
            with contextlib.closing(transport):
                answer = Session(transport, **options)._persist(transport.infer, *asked)
    assert servicer.inferences == 3
    assert answer["w"].shape == (1, 512)


@pytest.mark.parametrize("source", MODULES)
def test_the_synchronous_modules_are_current(source):
    assert (FOLDER / MODULES[source]).read_text() == generated(source)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e9])
def test_timeouts_are_checked(value):
    with pytest.raises(ParameterError):
        Timeout(request=value)
    with pytest.raises(ParameterError):
        Timeout(connect=value)


@pytest.mark.parametrize(
    ("url", "direct"),
    [("127.0.0.1:8001", True), ("localhost:8001", True), ("[::1]:8001", True), ("triton.example:8001", False)],
)
def test_a_proxy_is_not_asked_for_this_machine(url, direct):
    assert (("grpc.enable_http_proxy", 0) in channel_options(url)) is direct


def test_a_port_of_thousands_of_digits_is_refused():
    with pytest.raises(ParameterError, match="port"):
        checked_url("host:" + "1" * 5000)
