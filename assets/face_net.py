"""MobileFaceNet, whose weights ship with the project (`networks/weights/face_net.md`)."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from assets.paths import LEARNED
from networks.face_net import FaceNet


def face_net_file() -> Path:
    """The weights, fp16 safetensors."""
    return LEARNED / "face_net.safetensors"


def face_net() -> FaceNet:
    """The network, frozen."""
    network = FaceNet()
    network.load_state_dict(load_file(face_net_file()))
    return network.eval().requires_grad_(requires_grad=False)
