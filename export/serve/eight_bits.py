"""Convolutions of an exported graph in 8 bits, for processors: with VNNI two to three times as fast as in float32.

Post-training quantisation (Jacob et al., CVPR 2018): each map that enters or leaves a convolution gets one scale, found
on pictures of the generator, and each filter its own. Weights have 7 bits, since processors without VNNI add products
in 16.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor

from export.samples import at_size
from export.serve.graph import EightBits, Feed, sent
from networks.generator_file import Generator
from networks.mapping import STYLE_DIM
from networks.similarity import resample

PICTURES = 16
LEAST = 48  # channels of a convolution that gains


class _Feeds(CalibrationDataReader):  # type: ignore[misc]  # it has no types
    """What calibration runs the graph on."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next inputs by name; None at the end."""
        return next(self._feeds, None)


def in_eight_bits(path: Path, which: EightBits) -> None:
    """Compute convolutions of an ONNX file in 8 bits; replaces the file."""
    model = onnx.load(path)
    chosen = convolutions(model, which.weights)
    assert chosen
    partial = path.with_name(f"{path.name}.part")
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it asks for a pass that the exporter's files do not need
    try:
        quantize_static(
            model,
            partial,
            _Feeds(which.feeds()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=chosen,
        )
    finally:
        log.setLevel(level)
    onnx.checker.check_model(partial, full_check=True)
    partial.replace(path)


def convolutions(model: onnx.ModelProto, pattern: str) -> list[str]:
    """Names of the nodes that :func:`in_eight_bits` changes: convolutions that are dense, and large enough to gain.

    Those whose maps are shuffled to a picture stay, because 8 bits of them would show.
    """
    weights = {weight.name: list(weight.dims) for weight in model.graph.initializer if re.search(pattern, weight.name)}
    shuffled = {name for node in model.graph.node if node.op_type == "DepthToSpace" for name in node.input}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and min(weights.get(node.input[1], [0])[:2]) >= LEAST
        and node.output[0] not in shuffled
    ]


@torch.no_grad()
def pictures(generator: Generator) -> Tensor:
    """Pictures of seeded samples, as they are, moved, or with noise in another light; uint8 [PICTURES, 256, 256, 3]."""
    rng = torch.Generator().manual_seed(4_000_000)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((), generator=rng)

    made = []
    for number in range(PICTURES):
        w = generator.mapping(torch.randn(1, STYLE_DIM, generator=rng), between(0.5, 1.0))
        image = at_size(generator.synthesis(w[:, None].expand(-1, generator.synthesis.num_styles, -1)))
        if number % 3 == 1:
            angle, scale = between(-0.6, 0.6), between(0.6, 1.4)
            cos, sin = scale * angle.cos(), scale * angle.sin()
            x, y = between(-0.2, 0.2), between(-0.2, 0.2)
            theta = torch.stack([torch.stack([cos, -sin, x]), torch.stack([sin, cos, y])])[None]
            image = resample(image, theta, (image.shape[2], image.shape[3]))
        elif number % 3 == 2:
            image = image + 0.1 * torch.randn(image.shape, generator=rng)
            image = image * between(0.6, 1.4) + between(-0.5, 0.5)
        made.append(sent(image))
    return torch.cat(made)
