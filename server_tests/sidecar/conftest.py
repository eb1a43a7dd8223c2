"""Fixtures: jobs, and one that ran undisturbed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from protocol import refine_pb2 as pb
from server.sidecar import LocalSidecar
from server_tests.sidecar.calls import STEPS, Make, stub


@pytest.fixture(scope="session")
def job(generator: Path) -> Make:
    """Makes a job from the mean of W and f of zeros; the options are fields of ``Options``."""
    with safe_open(generator, framework="np") as file:
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


@pytest.fixture(scope="session")
def undisturbed(sidecar: LocalSidecar, job: Make) -> list[pb.RefineEvent]:
    """A job's stream from start to end."""
    with stub(sidecar.url) as service:
        return list(service.Refine(job(progress_every=1, preview_every=STEPS), timeout=300))
