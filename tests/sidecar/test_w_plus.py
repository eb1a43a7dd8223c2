"""The methods of W+: all styles move and f stays; IDinvert's domain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from networks.detail import Detail
from protocol.limits import ContractError
from protocol.options import Options
from sidecar.optimise.engine import TorchEngine
from tests.sidecar.samples import w_plus_start


def test_in_w_plus_all_styles_move_and_f_stays(w_engine: TorchEngine) -> None:
    start = w_plus_start(w_engine)
    job = w_engine.open(start, Options(preset="im2s", steps=2))
    mean = w_engine._w_avg.numpy()
    assert np.array_equal(job.state().w_m_plus, mean[None].repeat(16, axis=0))
    w_engine.run([job], 2)
    state = job.state()
    assert np.array_equal(state.f, start.f)
    assert (np.abs(state.w_m_plus - mean).max(axis=1) > 1e-3).all()
    assert state.terms is not None
    assert (state.terms.f, state.terms.domain) == (0, 0)


def test_idinvert_is_held_to_the_encoders_domain(w_engine: TorchEngine, in_domain: Detail) -> None:
    start = w_plus_start(w_engine)
    job = w_engine.open(start, Options(preset="idinvert", steps=1))
    w_engine.run([job], 1)
    terms = job.state().terms
    assert terms is not None
    with torch.no_grad():
        w = torch.from_numpy(start.w_m_plus)[None]
        image = w_engine._synthesis(w)
        literal = F.mse_loss(in_domain(F.interpolate(image, size=(256, 256), mode="area")), w)
    assert terms.domain == pytest.approx(float(literal), rel=0.02)  # a step may run in bfloat16
    assert terms.total == pytest.approx(20 * terms.mse + 10 * terms.perceptual + 40 * terms.domain, rel=1e-4)
    # Without the weight nothing is measured, and another group is run.
    other = w_engine.open(start, Options(preset="idinvert", steps=1, weights={"domain": 0.0}))
    assert other.group != job.group
    w_engine.run([other], 1)
    assert np.abs(other.state().w_m_plus - job.state().w_m_plus).max() > 1e-3


def test_the_domain_needs_its_encoder(middle: TorchEngine) -> None:
    with pytest.raises(ContractError, match="needs an encoder into W\\+, and middle has none"):
        middle.open(w_plus_start(middle), Options(preset="idinvert"))
