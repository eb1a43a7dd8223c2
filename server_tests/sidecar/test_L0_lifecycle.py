"""The side-car from start to stop, with a small generator: streams, checkpoints, and failures in between."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image

from assets.paths import project_root
from protocol import refine_pb2 as pb
from protocol import refine_pb2_grpc
from server.errors import ExitedError
from server.sidecar import LocalSidecar
from server_tests import tiny_repository as tiny
from server_tests.conftest import SIDECAR
from server_tests.processes import eventually, group, is_alive
from server_tests.sidecar.calls import LIMITS, STEPS, Make, metric, rest, stub, until, values
from server_tests.sidecar.small import PROGRAM, F, W, small_sidecar

NAME = "refine.v1.Refinement"


def test_health_and_reflection_name_the_service(small: LocalSidecar) -> None:
    with grpc.insecure_channel(small.url) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            found = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
            assert found.status == health_pb2.HealthCheckResponse.SERVING
        told = ProtoReflectionDescriptorDatabase(channel)
        assert NAME in told.get_services()
        assert told.FindFileContainingSymbol(NAME).SerializeToString() == pb.DESCRIPTOR.serialized_pb


def test_a_job_streams_to_its_end(undisturbed: list[pb.RefineEvent], small: LocalSidecar) -> None:
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
    assert values(done.f).shape == F
    assert values(done.w_m_plus).shape == W
    assert np.isfinite(values(done.f)).all()
    assert np.abs(values(done.f)).max() > 0
    assert 0 < done.metrics.psnr < 100
    # A gradient shows no face.
    assert not done.metrics.HasField("face")
    assert metric(small, 'refine_jobs_total{outcome="steps"}') >= 1


def test_a_cancelled_call_frees_its_slot(small: LocalSidecar, job: Make) -> None:
    counter = 'refine_jobs_total{outcome="cancelled"}'
    before = metric(small, counter)
    with stub(small.url) as service:
        call = service.Refine(job(steps=10_000), timeout=300)
        until(call, "progress")
        assert metric(small, "refine_active_jobs") == 1
        call.cancel()
    assert eventually(lambda: metric(small, "refine_active_jobs") == 0)
    assert eventually(lambda: metric(small, counter) == before + 1)
    assert small.is_running


def test_a_deadline_that_passes_frees_the_slot(small: LocalSidecar, job: Make) -> None:
    with stub(small.url) as service:
        _, error = rest(service.Refine(job(steps=10_000), timeout=3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: metric(small, "refine_active_jobs") == 0)
    assert small.is_running


def test_sigterm_gives_checkpoints_back(job: Make) -> None:
    running = small_sidecar("--batch=1", grace=120)
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
        assert "shutting down; continue elsewhere from the checkpoint." in error.details()
        kept = [event.checkpoint.step for event in events if event.HasField("checkpoint")]
        # Where steps are slow, there are earlier ones too.
        assert kept == sorted(set(kept))
        assert kept[-1] == max(event.progress.step for event in events if event.HasField("progress"))
        for call in (waiting, late):
            events, error = rest(call)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert not any(event.HasField("checkpoint") for event in events)
        assert running.wait() == 143
        assert running.log_path.read_text().endswith("stopped\n")


def start_both(repository: Path) -> tuple[subprocess.Popen[str], dict[str, dict[str, object]]]:
    """Triton and the side-car by the command line."""
    tiny.add_one(repository)
    command = [*PROGRAM, "start", "--sidecar", "--repository", str(repository), "--json"]
    ports = ["--grpc-port=0", "--sidecar-port=0", "--sidecar-metrics-port=0"]
    process = subprocess.Popen(
        [*command, *ports], cwd=project_root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert select.select([process.stdout], [], [], 300)[0]
    return process, json.loads(process.stdout.readline())


@pytest.mark.slow
def test_a_killed_side_car_costs_no_more_than_the_steps_since_the_checkpoint(
    repository: Path, small: LocalSidecar, undisturbed: list[pb.RefineEvent], job: Make
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
        sentence = f"error: The side-car ended with status 137; see {beside['log']}\n"
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
    with stub(small.url) as service:
        resumed = list(service.Refine(request, timeout=300))
    assert min(event.progress.step for event in resumed if event.HasField("progress")) == kept.step + 1
    one, other = resumed[-1].done, undisturbed[-1].done
    assert (one.step, one.reason) == (STEPS, pb.Done.STEPS)
    assert one.seconds > kept.seconds
    np.testing.assert_allclose(values(one.f), values(other.f), atol=1e-4)
    np.testing.assert_allclose(values(one.w_m_plus), values(other.w_m_plus), atol=1e-4)
    assert one.terms.total == pytest.approx(other.terms.total, rel=1e-3)


def test_a_killed_launcher_stops_both(repository: Path, job: Make) -> None:
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


def test_a_start_that_fails_says_why(small: LocalSidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(small.url.rpartition(":")[2])
    with pytest.raises(ExitedError, match=f"before it was ready: cannot listen on {small.url}"):
        small_sidecar(port=port).start()
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path))
    with pytest.raises(ExitedError, match=r"cannot find `\S+`: run `python -m export fetch --judges`"):
        LocalSidecar(arguments=SIDECAR).start()
    assert small.is_running
