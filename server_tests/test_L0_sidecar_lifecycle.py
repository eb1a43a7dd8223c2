"""The real side-car from start to stop: what the wire answers, what its ends leave its clients, what it refuses."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image
from safetensors import safe_open

from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from server.paths import build_dir, project_root
from server.sidecar import LocalSidecar
from server_tests import tiny_repository as tiny
from server_tests.test_L0_server_lifecycle import eventually, group, is_alive

NAME = "refine.v1.Refinement"
STEPS = 3
# Not on a GPU: a job would be done before anything can end it.
OPTIONS = ["--device=cpu", "--compile=off"]
LIMITS = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]


@pytest.fixture(scope="module", autouse=True)
def weights() -> Path:
    """The generator that the side-car loads."""
    path = build_dir() / "weights/ffhq/generator.safetensors"
    if not path.exists() or not (build_dir() / ".judges").exists():
        pytest.skip("the side-car's weights are not there: run python -m export fetch --judges")
    return path


@pytest.fixture(scope="module")
def sidecar(weights: Path) -> Iterator[LocalSidecar]:
    """A running side-car that no test ends."""
    with LocalSidecar(arguments=OPTIONS) as running:
        yield running


@pytest.fixture(scope="module")
def request_(weights: Path) -> Callable[..., pb.RefineRequest]:
    """Makes a job from the mean of W and f of zeros; the options are fields of ``Options``."""
    with safe_open(weights, framework="np") as file:
        fingerprint = file.metadata()["fingerprint"]
        w = np.tile(file.get_tensor("mapping.w_avg").astype("<f4"), (12, 1))
    picture = Image.radial_gradient("L").convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    zeros = pb.Tensor(shape=[512, 16, 16], data=bytes(4 * 512 * 16 * 16))

    def make(**options: object) -> pb.RefineRequest:
        return pb.RefineRequest(
            generator=fingerprint,
            domain="ffhq",
            encoded=buffer.getvalue(),
            f=zeros,
            w_m_plus=pb.Tensor(shape=w.shape, data=w.tobytes()),
            f_o=zeros,
            options=pb.Options(**{"steps": STEPS, "checkpoint_every": 1, **options}),
        )

    return make


Make = Callable[..., pb.RefineRequest]


@contextmanager
def stub(url: str) -> Iterator[refine_pb2_grpc.RefinementStub]:
    with grpc.insecure_channel(url, options=LIMITS) as channel:
        yield refine_pb2_grpc.RefinementStub(channel)


def until(call: Iterator[pb.RefineEvent], kind: str) -> pb.RefineEvent:
    """Read the stream up to the first event of a kind."""
    return next(event for event in call if event.WhichOneof("event") == kind)


def rest(call: Iterator[pb.RefineEvent]) -> tuple[list[pb.RefineEvent], grpc.RpcError]:
    """What a stream still says, and how it breaks off."""
    events = []
    with pytest.raises(grpc.RpcError) as caught:
        for event in call:
            events.append(event)
    return events, caught.value


def metric(sidecar: LocalSidecar, name: str) -> float:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sidecar.metrics_url, timeout=30) as page:
        found = re.search(rf"^{re.escape(name)} (\S+)$", page.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def values(message: pb.Tensor) -> np.ndarray:
    return np.frombuffer(message.data, "<f4").reshape(tuple(message.shape))


@pytest.fixture(scope="module")
def undisturbed(sidecar: LocalSidecar, request_: Make) -> list[pb.RefineEvent]:
    """A job's stream from start to end."""
    with stub(sidecar.url) as service:
        return list(service.Refine(request_(progress_every=1, preview_every=2), timeout=300))


def test_health_and_reflection_tell_what_is_served(sidecar: LocalSidecar) -> None:
    with grpc.insecure_channel(sidecar.url) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            found = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
            assert found.status == health_pb2.HealthCheckResponse.SERVING
        told = ProtoReflectionDescriptorDatabase(channel)
        assert NAME in told.get_services()
        assert told.FindFileContainingSymbol(NAME).SerializeToString() == pb.DESCRIPTOR.serialized_pb


def test_a_job_streams_to_its_end(undisturbed: list[pb.RefineEvent], sidecar: LocalSidecar) -> None:
    kinds = [event.WhichOneof("event") for event in undisturbed]
    done = undisturbed[-1].done
    assert (kinds[0], kinds[-1], done.step, done.reason) == ("queued", "done", STEPS, pb.Done.STEPS)
    assert undisturbed[0].queued.position == 0
    steps = {kind: [getattr(e, kind).step for e in undisturbed if e.WhichOneof("event") == kind] for kind in kinds}
    # A client that reads slowly may miss some, but not the last.
    assert steps["progress"] == sorted(set(steps["progress"]))
    assert steps["progress"][-1] == STEPS
    assert steps["preview"] == [2]
    with Image.open(io.BytesIO(next(e.preview.jpeg for e in undisturbed if e.HasField("preview")))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (256, 256))
    assert values(done.f).shape == (512, 16, 16)
    assert values(done.w_m_plus).shape == (12, 512)
    assert np.isfinite(values(done.f)).all()
    assert np.abs(values(done.f)).max() > 0
    assert 0 < done.metrics.psnr < 100
    # A gradient shows no face.
    assert not done.metrics.HasField("face")
    assert metric(sidecar, 'refine_jobs_total{outcome="steps"}') >= 1


@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_a_call_that_ends_early_frees_its_slot(sidecar: LocalSidecar, request_: Make, way: str) -> None:
    counter = 'refine_jobs_total{outcome="cancelled"}'
    before = metric(sidecar, counter)
    with stub(sidecar.url) as service:
        call = service.Refine(request_(steps=10_000), timeout=300 if way == "cancel" else 5)
        until(call, "progress")
        assert metric(sidecar, "refine_active_jobs") == 1
        if way == "cancel":
            call.cancel()
        code = rest(call)[1].code()
    assert code == (grpc.StatusCode.CANCELLED if way == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED)
    assert eventually(lambda: metric(sidecar, "refine_active_jobs") == 0)
    assert eventually(lambda: metric(sidecar, counter) == before + 1)
    assert sidecar.is_running
