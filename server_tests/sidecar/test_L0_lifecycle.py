"""The real side-car from start to stop: what the wire answers, what its ends leave its clients, what it refuses."""

from __future__ import annotations

import io
import json
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import urllib.request
import zlib
from collections import Counter
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

from assets.paths import build_dir, project_root
from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from server.errors import ExitedError
from server.sidecar import LocalSidecar
from server_tests import tiny_repository as tiny
from server_tests.good import Good
from server_tests.server.test_L0_lifecycle import eventually, group, is_alive
from server_tests.sidecar.bad_jobs import bad_job

NAME = "refine.v1.Refinement"
STEPS = 4
BAD_JOBS = 1000
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
def sidecar() -> Iterator[LocalSidecar]:
    """A running side-car that no test ends."""
    with LocalSidecar(arguments=OPTIONS) as running:
        yield running


@pytest.fixture(scope="module")
def job(weights: Path) -> Callable[..., pb.RefineRequest]:
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
    try:
        for event in call:
            events.append(event)
    except grpc.RpcError as error:
        return events, error
    raise AssertionError("the stream did not break off")


def metric(sidecar: LocalSidecar, name: str) -> float:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sidecar.metrics_url, timeout=30) as page:
        found = re.search(rf"^{re.escape(name)} (\S+)$", page.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def values(message: pb.Tensor) -> np.ndarray:
    return np.frombuffer(message.data, "<f4").reshape(tuple(message.shape))


@pytest.fixture(scope="module")
def undisturbed(sidecar: LocalSidecar, job: Make) -> list[pb.RefineEvent]:
    """A job's stream from start to end."""
    with stub(sidecar.url) as service:
        return list(service.Refine(job(progress_every=1, preview_every=STEPS), timeout=300))


def test_the_side_car_refuses_and_goes_on(sidecar: LocalSidecar, job: Make) -> None:
    with stub(sidecar.url) as good_stub, stub(sidecar.url) as bad_stub:

        def result() -> np.ndarray:
            *_, last = good_stub.Refine(job(steps=1), timeout=120)
            return values(last.done.w_m_plus)

        expected, refused = result(), metric(sidecar, 'refine_jobs_total{outcome="refused"}')
        draw, seen = random.Random(1), Counter[str]()
        with Good(lambda: np.array_equal(result(), expected)) as good:
            for _ in range(BAD_JOBS):
                kind, wrong = bad_job(draw, job)
                seen[kind] += 1
                with pytest.raises(grpc.RpcError) as caught:
                    list(bad_stub.Refine(wrong, timeout=120))
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, (kind, caught.value)
                assert str(caught.value.details()).endswith("."), kind
        assert len(seen) == 18
        assert min(seen.values()) > 20
        assert (good.wrong, good.right > 1) == (0, True)
        assert metric(sidecar, 'refine_jobs_total{outcome="refused"}') - refused == BAD_JOBS
        assert metric(sidecar, "refine_active_jobs") == 0


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
    # A client that reads slowly may miss some, but not the last.
    steps = [event.progress.step for event in undisturbed if event.HasField("progress")]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
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


def test_a_cancelled_call_frees_its_slot(sidecar: LocalSidecar, job: Make) -> None:
    counter = 'refine_jobs_total{outcome="cancelled"}'
    before = metric(sidecar, counter)
    with stub(sidecar.url) as service:
        call = service.Refine(job(steps=10_000), timeout=300)
        until(call, "progress")
        assert metric(sidecar, "refine_active_jobs") == 1
        call.cancel()
    assert eventually(lambda: metric(sidecar, "refine_active_jobs") == 0)
    assert eventually(lambda: metric(sidecar, counter) == before + 1)
    assert sidecar.is_running


def test_a_deadline_that_passes_frees_the_slot(sidecar: LocalSidecar, job: Make) -> None:
    with stub(sidecar.url) as service:
        _, error = rest(service.Refine(job(steps=10_000), timeout=3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: metric(sidecar, "refine_active_jobs") == 0)
    assert sidecar.is_running


def test_sigterm_gives_checkpoints_back(job: Make) -> None:
    running = LocalSidecar(arguments=[*OPTIONS, "--batch=1"], grace=120)
    with running, grpc.insecure_channel(running.url, options=LIMITS) as channel:
        service = refine_pb2_grpc.RefinementStub(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        active = service.Refine(job(steps=10_000, checkpoint_every=10_000, progress_every=1), timeout=300)
        until(active, "progress")
        waiting = service.Refine(job(), timeout=300)
        assert until(waiting, "queued").queued.position == 0
        os.kill(running.pid, signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        late = service.Refine(job(), timeout=300)
        events, error = rest(active)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "shutting down; go on elsewhere from the checkpoint." in error.details()
        assert [event.checkpoint.step for event in events if event.HasField("checkpoint")] == [
            max(event.progress.step for event in events if event.HasField("progress"))
        ]
        for call in (waiting, late):
            events, error = rest(call)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert not any(event.HasField("checkpoint") for event in events)
        assert running.wait() == 143
        assert running.log_path.read_text().endswith("stopped\n")


def start_both(repository: Path) -> tuple[subprocess.Popen[str], dict[str, dict[str, object]]]:
    """Triton and the side-car by the command line."""
    tiny.add_one(repository)
    command = [sys.executable, "-m", "server", "start", "--sidecar", "--repository", str(repository), "--json"]
    ports = ["--grpc-port=0", "--sidecar-port=0", "--sidecar-metrics-port=0"]
    options = [f"--sidecar-option={option}" for option in OPTIONS]
    process = subprocess.Popen(
        [*command, *ports, *options], cwd=project_root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert select.select([process.stdout], [], [], 300)[0]
    return process, json.loads(process.stdout.readline())


def test_a_killed_side_car_costs_no_more_than_the_steps_since_the_checkpoint(
    repository: Path, sidecar: LocalSidecar, undisturbed: list[pb.RefineEvent], job: Make
) -> None:
    process, where = start_both(repository)
    try:
        beside = where["sidecar"]
        with stub(beside["grpc"]) as service:
            call = service.Refine(job(), timeout=300)
            kept = until(call, "checkpoint").checkpoint
            os.kill(beside["pid"], signal.SIGKILL)
            events, error = rest(call)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        sentence = f"error: The side-car ended by itself with status 137; its log is {beside['log']}.\n"
        assert said == sentence
        assert eventually(lambda: not group(where["pid"]))
    finally:
        process.kill()
        process.communicate()
    for event in events:
        if event.HasField("checkpoint"):
            kept = event.checkpoint
    assert 1 <= kept.step < STEPS
    request = job(progress_every=1)
    request.resume.CopyFrom(kept)
    # Not looked at any more.
    request.w_m_plus.data = bytes(len(request.w_m_plus.data))
    with stub(sidecar.url) as service:
        resumed = list(service.Refine(request, timeout=300))
    assert min(event.progress.step for event in resumed if event.HasField("progress")) == kept.step + 1
    one, other = resumed[-1].done, undisturbed[-1].done
    assert (one.step, one.reason) == (STEPS, pb.Done.STEPS)
    assert one.seconds > kept.seconds
    np.testing.assert_allclose(values(one.f), values(other.f), atol=1e-4)
    np.testing.assert_allclose(values(one.w_m_plus), values(other.w_m_plus), atol=1e-4)
    assert one.terms.total == pytest.approx(other.terms.total, rel=1e-3)


def test_a_killed_launcher_takes_both_along(repository: Path, job: Make) -> None:
    process, where = start_both(repository)
    beside = where["sidecar"]
    with process:
        try:
            with stub(beside["grpc"]) as service:
                call = service.Refine(job(steps=10_000), timeout=300)
                until(call, "progress")
                process.kill()
                assert rest(call)[1].code() == grpc.StatusCode.UNAVAILABLE
        finally:
            process.kill()
    assert eventually(lambda: not is_alive(beside["pid"]))
    assert eventually(lambda: not group(where["pid"]))


def test_a_start_that_fails_says_why(sidecar: LocalSidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(sidecar.url.rpartition(":")[2])
    with pytest.raises(ExitedError, match=f"before it was ready: The address {sidecar.url} cannot be listened on"):
        LocalSidecar(port=port, arguments=OPTIONS).start()
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path))
    with pytest.raises(ExitedError, match=r"There is no file \S+; run: python -m export fetch --judges"):
        LocalSidecar(arguments=OPTIONS).start()
    assert sidecar.is_running


def png_header(side: int) -> bytes:
    """The beginning of a PNG that claims to be a large square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")
    )


def spoil(request: pb.RefineRequest, field: str, value: float) -> None:
    tensor = getattr(request, field)
    tensor.data = np.full(tuple(tensor.shape), value, "<f4").tobytes()


BAD: dict[str, tuple[Callable[[pb.RefineRequest], object], str]] = {
    "NaN in f": (lambda r: spoil(r, "f", np.nan), "f holds numbers that are not finite."),
    "infinite w_m_plus": (lambda r: spoil(r, "w_m_plus", np.inf), "w_m_plus holds numbers that are not finite."),
    "NaN in f_o": (lambda r: spoil(r, "f_o", np.nan), "f_o holds numbers that are not finite."),
    "f of another shape": (lambda r: r.f.CopyFrom(r.w_m_plus), "must be [512, s, s]"),
    "bytes that do not fill the shape": (lambda r: r.f.shape.append(2), "[512, 16, 16, 2]"),
    "styles of another cut": (lambda r: r.w_m_plus.CopyFrom(pb.Tensor(shape=[0, 512])), "[12, 512]"),
    "another generator": (lambda r: setattr(r, "generator", "0" * 16), "belongs to generator '0000000000000000'"),
    "another domain": (lambda r: setattr(r, "domain", "cats"), "serves the domain ffhq, not 'cats'"),
    "too many steps": (lambda r: setattr(r.options, "steps", 10_001), "from 1 to 10000, not 10001"),
    "rare checkpoints": (lambda r: setattr(r.options, "checkpoint_every", 10_001), "at most 10000, not 10001"),
    "unknown preset": (lambda r: setattr(r.options, "preset", "best"), "no preset 'best'"),
    "negative seconds": (lambda r: setattr(r.options, "seconds", -1), "The option seconds is above 0"),
    "NaN target": (lambda r: setattr(r.options, "target", np.nan), "The option target is above 0"),
    "weight out of range": (lambda r: setattr(r.options.weights, "mse", 1e7), "The weight of mse is from 0 to 1e+06"),
    "no photo": (lambda r: r.ClearField("encoded"), "no photo"),
    "image over the cap": (lambda r: setattr(r, "encoded", png_header(5000)), "5000x5000 pixels"),
    "image cut short": (lambda r: setattr(r, "encoded", png_header(500)), "not a whole PNG, JPEG or WebP"),
    "image not square": (lambda r: r.pixels.MergeFrom(pb.Pixels(width=20, height=30, rgb=bytes(1800))), "20x30"),
    "resumed after its end": (
        lambda r: r.resume.MergeFrom(pb.Checkpoint(step=STEPS + 1, f=r.f, w_m_plus=r.w_m_plus)),
        "checkpoint",
    ),
    "request id": (lambda r: setattr(r, "request_id", "a b"), "A request_id has at most 64"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_in_one_sentence(sidecar: LocalSidecar, job: Make, name: str) -> None:
    change, says = BAD[name]
    request = job()
    change(request)
    with stub(sidecar.url) as service:
        events, error = rest(service.Refine(request, timeout=300))
    assert (error.code(), events) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert says in error.details()
    assert error.details().endswith(".")
    assert "\n" not in error.details()
    assert metric(sidecar, "refine_active_jobs") == 0
