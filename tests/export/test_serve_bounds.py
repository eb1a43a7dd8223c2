"""No served model takes an input of any size, whatever backend serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from assets.paths import REPOSITORY, generator_file
from export.serve import graphs
from export.serve.exporters import load_torchscript, to_onnx, to_torchscript
from export.serve.graph import Graph
from protocol.roles import MAX_PHOTO_SIDE, MAX_STRENGTHS, ROLES

built = pytest.mark.skipif(not generator_file("ffhq").exists(), reason="the generator is not built: make invert")


@pytest.fixture(scope="module", params=["ffhq_shift", "ffhq_cut8_shift"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path, Path]:
    graph = next(g for g in graphs.graphs("ffhq") if g.name == request.param)
    folder = tmp_path_factory.mktemp("shift")
    module = graph.build().eval()
    to_onnx(graph, module, folder / "model.onnx")
    to_torchscript(graph, module, folder / "model.pt")
    return graph, folder / "model.onnx", folder / "model.pt"


@built
def test_more_strengths_than_allowed_are_refused_inside_the_graph(files: tuple[Graph, Path, Path]) -> None:
    graph, onnx_file, torch_file = files
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    script = load_torchscript(torch_file)
    rng = torch.Generator().manual_seed(0)
    random = {name: torch.randn(x.shape, generator=rng) * 0.1 for name, x in graph.inputs.items()}
    for count in (1, 5, MAX_STRENGTHS, MAX_STRENGTHS + 1, 1500):
        inputs = random | {"strengths": torch.linspace(-2, 2, count)}
        arrays = {name: x.numpy() for name, x in inputs.items()}
        if count > MAX_STRENGTHS:
            with pytest.raises(Exception, match=rf"Input shape:\{{{count}\}}, requested shape:\{{{MAX_STRENGTHS}\}}"):
                session.run(None, arrays)
            with pytest.raises(RuntimeError, match=rf"size of the tensor \({count}\).*size \({MAX_STRENGTHS}\)"):
                script(*inputs.values())
            continue
        with torch.no_grad():
            expected = [x.numpy() for x in graph.build().eval()(*inputs.values())]
        for found in (session.run(None, arrays), [x.numpy() for x in script(*inputs.values())]):
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@built
def test_every_variable_input_is_bounded_in_its_graph() -> None:
    for graph in graphs.graphs("ffhq"):
        variable = {name for name in graph.inputs if name in graph.dynamic}
        # The face finder ignores what lies beyond its bound; see below.
        assert variable == set(graph.largest) or graph.name == "faces", graph.name
        role = ROLES[graph.name.rpartition("_")[2]]
        assert graph.batched == bool(role.largest_batch), graph.name


@built
def test_the_graphs_that_are_served_have_the_bounds() -> None:
    found = sorted(REPOSITORY.glob("*_shift/1/model.onnx"))
    assert len(found) == 3
    for path in found:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        sizes = {node.name: [d if isinstance(d, int) else 9 for d in node.shape] for node in session.get_inputs()}
        with pytest.raises(Exception, match="requested shape:"):
            session.run(None, {name: np.zeros(size, np.float32) for name, size in sizes.items()})


@built
def test_the_face_finder_looks_no_further_than_its_bound() -> None:
    session = onnxruntime.InferenceSession(REPOSITORY / "faces/1/model.onnx", providers=["CPUExecutionProvider"])
    photo = np.random.default_rng(0).integers(0, 255, (MAX_PHOTO_SIDE, 40, 3), np.uint8)
    large = np.concatenate([photo, np.full((4 * MAX_PHOTO_SIDE, 40, 3), 128, np.uint8)])
    for one, other in zip(session.run(None, {"image": large}), session.run(None, {"image": photo}), strict=True):
        np.testing.assert_array_equal(one, other)
