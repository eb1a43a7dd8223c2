from __future__ import annotations

import shutil

import onnxruntime as ort
import pytest
import torch
from torch.nn import functional as F

from assets.face_net import face_net
from assets.npm import members
from assets.perceptual import WeightsMissing

PACKAGE = "faceplugin-face-recognition-js@0.0.1"
SHA256 = "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba"


@pytest.fixture(scope="module")
def published() -> bytes:
    if shutil.which("npm") is None:
        pytest.skip("the published file comes with npm")
    try:
        return members(PACKAGE, SHA256, ("package/model/fr_feature.onnx",))[0]
    except WeightsMissing as error:
        pytest.skip(str(error))


def test_it_agrees_with_the_published_graph(published: bytes) -> None:
    session = ort.InferenceSession(published, providers=["CPUExecutionProvider"])
    chip = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (expected,) = session.run(None, {"input": ((chip + 1) * (127.5 / 128) - 127 / 128).numpy()})
    # Weights of half precision.
    assert F.cosine_similarity(face_net()(chip), torch.from_numpy(expected)).item() > 0.9999
