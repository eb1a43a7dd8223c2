"""The served models agree with torch."""

from __future__ import annotations

import pytest
import tritonclient.grpc as grpc

from assets.paths import project_root
from export.serve.verify import CHANNEL, by_triton, table, verify
from server.triton import LocalTriton


@pytest.mark.slow
def test_torch_onnxruntime_and_the_served_models_agree(triton: LocalTriton) -> None:
    with grpc.InferenceServerClient(triton.url, channel_args=CHANNEL) as client:
        rows = verify("ffhq", lambda model, feed: by_triton(client, model, feed))
    assert {row.engine for row in rows} == {"onnxruntime", "served"}
    served = {row.model for row in rows if row.engine == "served"}
    assert served == {config.parent.name for config in (project_root() / "model_repository").glob("*/config.pbtxt")}
    assert all(row.passed for row in rows), table(rows)
