"""Inverters whose server is away, slow, wrong or another."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from client import (
    AnswerRefused,
    AsyncInverter,
    Inverter,
    ModelMissing,
    ParameterError,
    ServerTimeout,
    ServerUnavailable,
    Timeout,
)
from client.triton.transport import ModelConfig
from tests.client.calling import direction, inverted, result_of
from tests.client.calls import AskConfig, AskLive, Infer
from tests.client.fakes import FakeTransport, FakeTriton, check_sentence, config, serving


def test_a_server_without_the_models(photo, asynchronous):
    transport = FakeTransport(missing=("ffhq_invert",))
    with pytest.raises(ModelMissing, match="ffhq_invert"):
        result_of("invert", photo, transport=transport, asynchronous=asynchronous)


def test_no_server_is_reported_after_retries(photo, monkeypatch):
    monkeypatch.setattr("client.wire.retry.time.sleep", lambda _: None)

    def nobody(_call):
        raise ServerUnavailable("No Triton server answers at fake:8001.")

    transport = FakeTransport(fault=nobody)
    with pytest.raises(ServerUnavailable):
        result_of("invert", photo, transport=transport)
    assert [type(call) for call in transport.calls] == [AskLive] * 4


def test_the_first_contact_has_its_own_deadline(photo):
    def silence(_call):
        raise ServerTimeout("The server at fake:8001 gave no answer within 2 seconds.")

    transport = FakeTransport(fault=silence)
    with (
        Inverter(transport=transport, timeout=Timeout(connect=2, request=30)) as inverter,
        pytest.raises(ServerUnavailable, match="within 2 seconds"),
    ):
        inverter.invert(photo)
    assert len(transport.timeouts) == 1
    assert 0 < transport.timeouts[0] <= 2


def test_requests_have_the_request_deadline(photo):
    transport = FakeTransport()
    with Inverter(transport=transport, timeout=Timeout(connect=2000, request=3000)) as inverter:
        inverter.invert(photo)
    assert transport.timeouts[0] <= 2000
    assert all(2000 < seconds <= 3000 for seconds in transport.timeouts[1:])


def test_a_slow_model_is_a_timeout_and_not_retried(photo):
    def slow(call):
        if isinstance(call, Infer):
            raise ServerTimeout("The server at fake:8001 gave no answer within 60 seconds.")

    transport = FakeTransport(fault=slow)
    with pytest.raises(ServerTimeout):
        result_of("invert", photo, transport=transport)
    assert len(transport.inferences) == 1


def test_a_server_that_is_not_live(photo):
    class Stopping(FakeTransport):
        def send(self, call, *, timeout):
            return False if isinstance(call, AskLive) else super().send(call, timeout=timeout)

    with pytest.raises(ServerUnavailable, match="not live"):
        result_of("invert", photo, transport=Stopping())


def spoilt(name: str, spoil):
    """A transport whose answers' tensor ``name`` is spoilt."""

    class Spoilt(FakeTransport):
        def send(self, call, *, timeout):
            answer = super().send(call, timeout=timeout)
            if isinstance(call, Infer) and name in answer:
                answer[name] = spoil(answer[name])
            return answer

    return Spoilt()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: np.where(np.arange(a.size).reshape(a.shape) == 5, np.nan, a).astype(np.float32), "not finite"),
        (lambda a: a * np.float32(np.inf), "not finite"),
        (lambda a: a.astype(np.float64), "float64"),
        (lambda a: a[:, :100], "shape"),
        (lambda a: a[0], "batch"),
        (lambda a: np.concatenate([a, a]), "batch"),
    ],
)
def test_unusable_answers_are_refused(photo, spoil, words, asynchronous):
    with pytest.raises(AnswerRefused, match=words) as caught:
        result_of("invert", photo, transport=spoilt("f", spoil), asynchronous=asynchronous)
    check_sentence(caught.value)


def test_too_few_images_are_refused():
    with pytest.raises(AnswerRefused, match="3 strengths with 2 images"):
        result_of("edit", inverted(), direction(), [1, 2, 3], transport=spoilt("images", lambda a: a[:2]))


@pytest.mark.parametrize("drop", ["generator", "cut"])
def test_a_server_that_does_not_say_its_generator(photo, drop):
    def silent(call):
        if isinstance(call, AskConfig):
            found = config(call.model)
            rest = {key: value for key, value in found.parameters.items() if key != drop}
            return ModelConfig(found.name, found.max_batch, found.inputs, found.outputs, rest)
        return None

    with pytest.raises(AnswerRefused, match="does not say"):
        result_of("invert", photo, transport=FakeTransport(fault=silent))


def test_a_model_of_the_same_name_that_is_another(photo):
    def other(call):
        return config("ffhq_mapping") if isinstance(call, AskConfig) else None

    with pytest.raises(AnswerRefused, match="no input `image`"):
        result_of("invert", photo, transport=FakeTransport(fault=other))


@pytest.mark.parametrize("domain", ["", "a b", "../x", "é", "1"])
def test_domains_are_names(domain):
    with pytest.raises(ParameterError):
        Inverter(domain=domain, transport=FakeTransport())


def test_images_are_the_callers_own(photo):
    result = result_of("invert", photo, transport=FakeTransport())
    assert result.reconstruction.flags.writeable
    assert result.inversion.f.flags.writeable


def test_over_grpc_both_ways(photo):
    with serving(FakeTriton()) as url:
        with Inverter(url) as inverter:
            one = inverter.invert(photo)
            images = inverter.edit(one.inversion, direction(), [-1.0, 1.0])
            assert inverter.status().usable

        async def go():
            async with AsyncInverter(url) as inverter:
                results = await asyncio.gather(*(inverter.invert(photo) for _ in range(3)))
                return results, await inverter.edit(results[0].inversion, direction(), [-1.0, 1.0])

        results, edited = asyncio.run(go())
    for other in results:
        np.testing.assert_array_equal(other.inversion.f, one.inversion.f)
        np.testing.assert_array_equal(other.reconstruction, one.reconstruction)
    np.testing.assert_array_equal(edited, images)


def test_the_client_is_thin():
    check = (
        "import sys, client, client.cli, client.triton.grpc, client.sidecar.grpc; "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'skimage', 'export', 'networks', 'server', 'sidecar', 'judges'}; "
        "heavy &= set(sys.modules); "
        "print(*heavy)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    lazy = "import sys, client.cli; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lazy], check=False).returncode == 0


def test_the_exception_tree_is_in_the_docstring():
    import client

    for name in client.__all__:
        thing = getattr(client, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert name in client.__doc__
            assert thing.__doc__
