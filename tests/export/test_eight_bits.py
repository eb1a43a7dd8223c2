"""Convolutions in 8 bits: which they are, how near they come, and what is left of a file when it goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.serve.eight_bits import LEAST, in_eight_bits
from export.serve.exporters import to_onnx
from export.serve.graph import EightBits, Feed, Graph
from export.serve.variant import Variant
from export.serve.verify import EIGHT_BITS_PSNR, asked, by_onnxruntime, by_torch, compare


class Net(nn.Module):
    """Convolutions of every kind, and a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(LEAST, 64, 3, padding=1)
        self.small = nn.Conv2d(64, LEAST - 8, 1)
        self.large = nn.Conv2d(LEAST - 8, 64, 1)
        self.own = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.other = nn.Conv2d(64, 64, 3, padding=1)
        self.image = nn.Conv2d(64, 48, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.large(self.small(F.leaky_relu(self.dense(x), 0.2))), 0.2)
        return F.pixel_shuffle(self.image(self.other(self.own(y))), 4)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(1)
    net = Net().eval()
    return Graph(name="net", build=lambda: net, inputs={"x": torch.zeros(2, LEAST, 8, 8)}, outputs=("y",), weights=())


def feeds(count: int = 4) -> list[Feed]:
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((1, LEAST, 8, 8), np.float32)} for _ in range(count)]


@pytest.fixture
def exported(graph: Graph, tmp_path: Path) -> Path:
    to_onnx(graph, graph.build(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def filters(path: Path) -> dict[str, int]:
    """Of each convolution's weights, by the layer's name, their type."""
    model = onnx.load(path)
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    made = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    read = (node.input[1] for node in model.graph.node if node.op_type == "Conv")
    return {made.get(name, name).split(".")[0]: types[made.get(name, name)] for name in read}


def test_large_dense_convolutions_are_and_a_picture_is_not(exported: Path) -> None:
    in_eight_bits(exported, EightBits(weights=r"^(dense|small|large|own|image)\.", feeds=feeds))
    kept = onnx.TensorProto.FLOAT
    expected = dict.fromkeys(("small", "large", "own", "other", "image"), kept) | {"dense": onnx.TensorProto.INT8}
    assert filters(exported) == expected
    assert [path.name for path in exported.parent.iterdir()] == ["net.onnx"]


def test_weights_have_seven_bits_and_results_are_near(graph: Graph, exported: Path) -> None:
    in_eight_bits(exported, EightBits(weights=r"^(dense|other)\.", feeds=feeds))
    whole = [onnx.numpy_helper.to_array(w) for w in onnx.load(exported).graph.initializer]
    largest = [int(np.abs(w.astype(int)).max()) for w in whole if w.dtype == np.int8 and w.ndim == 4]
    assert len(largest) == 2
    assert set(largest) <= {63, 64}
    batch = np.concatenate([feed["x"] for feed in feeds()])
    expected = by_torch(graph.build(), graph.outputs, {"x": batch})
    row = compare("net", "onnxruntime", expected, by_onnxruntime(exported, {"x": batch}), least=EIGHT_BITS_PSNR)[0]
    assert row.passed, row
    assert row.max_abs > 1e-4  # and not float32


def test_a_failure_leaves_the_file(exported: Path) -> None:
    before = exported.read_bytes()
    with pytest.raises(Exception, match="x"):
        in_eight_bits(exported, EightBits(weights="dense", feeds=lambda: [{"x": np.zeros((1, 1), np.float32)}]))
    assert exported.read_bytes() == before


def test_only_files_for_a_cpu_are_in_eight_bits(graph: Graph) -> None:
    some = Graph(
        name="d_looks",
        build=graph.build,
        inputs={},
        outputs=(),
        weights=(),
        eight_bits=EightBits(weights="", feeds=feeds),
    )
    every = {"d_looks": some, "d_fine": graph, "d_cut8_fine": graph}
    assert asked("d_looks", every, Variant()) == asked("d_invert", every, Variant()) == EIGHT_BITS_PSNR
    assert asked("d_fine", every, Variant()) is asked("d_cut8_invert", every, Variant()) is None
    assert (
        asked("d_looks", every, Variant(target="gpu")) is asked("d_looks", every, Variant(format="torchscript")) is None
    )
    assert Variant(target="gpu").options == " --target gpu"
