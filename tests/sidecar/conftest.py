"""Engines that all tests of this folder share: loading one takes seconds."""

from __future__ import annotations

import math

import pytest
import torch

from networks.detail import Detail
from protocol.options import Options
from sidecar.job import Start
from sidecar.optimise.engine import TorchEngine, load_engine
from sidecar.optimise.optimisation import Optimisation
from sidecar.service import batcher
from tests.sidecar.samples import at_f_o, middle_engine, sample, small_start


@pytest.fixture(autouse=True)
def no_checkpoints_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is slow must not change which events a test sees."""
    monkeypatch.setattr(batcher, "_CHECKPOINT_SECONDS", math.inf)


@pytest.fixture(scope="session")
def engine() -> TorchEngine:
    return load_engine(device="cpu", compiled=False)


@pytest.fixture(scope="session")
def start() -> Start:
    return sample(1)


@pytest.fixture(scope="session")
def middle() -> TorchEngine:
    return middle_engine()


@pytest.fixture(scope="session")
def middle_start(middle: TorchEngine) -> Start:
    return at_f_o(small_start(middle, 1))


@pytest.fixture(scope="session")
def stepped(middle: TorchEngine, middle_start: Start) -> Optimisation:
    job = middle.open(middle_start, Options(steps=5))
    middle.run([job], 1)
    return job


@pytest.fixture(scope="session")
def in_domain() -> Detail:
    torch.manual_seed(0)
    return Detail(cut=4, count=16).eval()


@pytest.fixture(scope="session")
def w_engine(in_domain: Detail) -> TorchEngine:
    return middle_engine(in_domain)
