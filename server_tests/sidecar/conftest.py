"""Fixtures: a small side-car, jobs for it, and one that ran undisturbed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from protocol import refine_pb2 as pb
from server.sidecar import LocalSidecar
from server_tests.sidecar.calls import STEPS, Make, stub
from server_tests.sidecar.small import DOMAIN, GENERATOR, F, W, small_sidecar


@pytest.fixture(scope="session")
def small(generator: Path) -> Iterator[LocalSidecar]:
    """A running side-car of a small generator; `generator` skips where there are no judges."""
    assert generator.is_file()
    with small_sidecar() as running:
        yield running


@pytest.fixture(scope="session")
def job() -> Make:
    """Makes a job from w_M+ and f of zeros; the options are fields of ``Options``."""
    picture = Image.radial_gradient("L").convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    f, w = (pb.Tensor(shape=shape, data=bytes(4 * math.prod(shape))) for shape in (F, W))

    def make(**options: object) -> pb.RefineRequest:
        return pb.RefineRequest(
            generator=GENERATOR,
            domain=DOMAIN,
            encoded=buffer.getvalue(),
            f=f,
            w_m_plus=w,
            f_o=f,
            options=pb.Options(**{"steps": STEPS, "checkpoint_every": 1, **options}),
        )

    return make


@pytest.fixture(scope="session")
def undisturbed(small: LocalSidecar, job: Make) -> list[pb.RefineEvent]:
    """A job's stream from start to end."""
    with stub(small.url) as service:
        return list(service.Refine(job(progress_every=1, preview_every=STEPS), timeout=300))
