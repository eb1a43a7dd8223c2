"""Starts and checkpoints that an engine refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocol.limits import ContractError
from protocol.options import Options
from sidecar.job import Start
from sidecar.optimise.engine import EngineError, TorchEngine, load_engine
from sidecar.optimise.optimisation import Optimisation


def broken(start: Start, name: str, value: Any) -> Start:
    array = getattr(start, name).copy()
    if isinstance(value, float):
        array.flat[7] = value
    elif isinstance(value, str):
        array = array.astype(value)
    else:
        array = array[value]
    return replace(start, **{name: array})


@pytest.mark.parametrize("name", ["f", "w_m_plus", "f_o"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "float64", np.s_[:3], np.s_[..., :4]])
def test_a_start_that_does_not_fit_is_refused(middle: TorchEngine, middle_start: Start, name: str, value: Any) -> None:
    with pytest.raises(ContractError, match=name):
        middle.open(broken(middle_start, name, value), Options())


@pytest.mark.parametrize("value", ["float32", np.s_[:256], np.s_[:256, :256], np.s_[..., :1]])
def test_another_image_is_refused(middle: TorchEngine, middle_start: Start, value: Any) -> None:
    with pytest.raises(ContractError, match="photo"):
        middle.open(broken(middle_start, "target", value), Options())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step -1"),
        ({"step": 9}, "step 9 of 5"),
        ({"seconds": float("nan")}, "seconds"),
        ({"f": np.full((24, 16, 16), np.nan, np.float32)}, "f of the checkpoint"),
        ({"w_m_plus": np.zeros((3, 512), np.float32)}, "w_m_plus of the checkpoint"),
        ({"optimiser": {"w": None}}, "its state lacks w"),
        ({"optimiser": {"coarse": None}}, "its state lacks coarse"),
        ({"optimiser": {"coarse": np.zeros(2, np.float32)}}, "coarse of the checkpoint: float32"),
        ({"optimiser": {"extra": np.zeros(1, np.float32)}}, "expected a state of w"),
        ({"optimiser": {"w.exp_avg_sq": np.full((12, 512), -1, np.float32)}}, "negative"),
        ({"optimiser": {"f.exp_avg": None}}, "expected a state of w"),
        ({"optimiser": {"f.exp_avg": np.zeros((24, 8, 8), np.float32)}}, "f.exp_avg of the checkpoint: expected"),
        ({"optimiser": {"w": np.full((12, 512), np.inf, np.float32)}}, "invalid w of the checkpoint: it has"),
    ],
)
def test_a_broken_checkpoint_is_refused(
    middle: TorchEngine, middle_start: Start, stepped: Optimisation, change: dict[str, Any], message: str
) -> None:
    options = Options(steps=5)
    state = stepped.state()
    if "optimiser" in change:
        changed = {**state.optimiser, **change["optimiser"]}
        change = {"optimiser": {name: value for name, value in changed.items() if value is not None}}
    with pytest.raises(ContractError, match=message):
        middle.open(middle_start, options, replace(state, **change))


def test_missing_weights_are_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path))
    with pytest.raises(EngineError, match="run `python -m export fetch --judges`"):
        load_engine(device="cpu")
