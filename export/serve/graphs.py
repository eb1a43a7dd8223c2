"""``python -m export graphs``: the networks as ONNX or TorchScript graphs.

Each cut has its own models: ``ffhq_fine`` at 16x16, ``ffhq_cut8_fine`` at 8x8, and ``ffhq_cut4_fine`` for W+. Images
are uint8 NHWC outside; resizing, normalisation, clamping and rounding are part of the graphs, so a client never sends
or receives a float image. All batches are dynamic. A graph is exported again only if its weights, the code that defines
it or the exporter changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assets.paths import ROOT, detail_file, encoder_file, generator_file
from export.generator import load_generator, shows_faces
from export.serve.eight_bits import in_eight_bits
from export.serve.exporters import OPSET, signature, to_onnx, to_torchscript
from export.serve.faces import faces_graph
from export.serve.graph import Graph, received, sent
from export.serve.looks import looks_graphs
from export.serve.variant import PLAIN, Variant, variant_of
from export.serve.variant import add_arguments as add_variant
from networks.detail import Detail
from networks.encoder import Constant, Encoder
from networks.generator_file import Generator, read_shape
from networks.learned_file import BACKBONE, load_detail, load_encoder
from networks.mapping import STYLE_DIM
from networks.mobilestylegan import MobileStyleGAN
from networks.synthesis import Synthesis
from protocol.cuts import DEFAULT_CUT, W_PLUS, prefix
from protocol.roles import ROLES

PHOTO_SIZE = 256  # side of the encoders' input
CUT = DEFAULT_CUT  # its models have the plain names
EVERY_CUT = (CUT, 8, W_PLUS)
CODE = (
    "export/serve/bounds.py",
    "export/serve/exporters.py",
    "export/serve/faces.py",
    "export/serve/graph.py",
    "export/serve/graphs.py",
    "networks/detail.py",
    "networks/encoder.py",
    "networks/generator_file.py",
    "networks/learned_file.py",
    "networks/mapping.py",
    "networks/mobilestylegan.py",
    "networks/perceptual.py",
    "networks/pixels.py",
    "networks/resampling.py",
    "networks/stylegan.py",
    "networks/stylegan2.py",
    "networks/synthesis.py",
    "networks/weights_file.py",
    "networks/yunet.py",
    "protocol/cuts.py",
)


class MappingGraph(nn.Module):
    """z [B, 512], psi [B, 1] -> w [B, 512]."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.mapping = generator.mapping

    def forward(self, z: Tensor, psi: Tensor) -> Tensor:
        """See the class."""
        w: Tensor = self.mapping(z, psi)
        return w


class CoarseGraph(nn.Module):
    """w [B, n, 512], the coarse styles -> f [B, C, 16, 16]."""

    def __init__(self, generator: Generator, *, cut: int) -> None:
        super().__init__()
        self.synthesis, self.cut = generator.synthesis, cut

    def forward(self, w: Tensor) -> Tensor:
        """See the class."""
        return self.synthesis.coarse(w, cut=self.cut)


class FineGraph(nn.Module):
    """f [B, C, s, s], w_m_plus [B, m, 512], the fine styles -> image uint8 [B, S, S, 3]."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.synthesis = generator.synthesis

    def forward(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """See the class."""
        return sent(self.synthesis.fine(f, w_m_plus))


class EncoderGraph(nn.Module):
    """image uint8 [B, 256, 256, 3] -> f^o [B, C, s, s]."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        f: Tensor = self.encoder(F.avg_pool2d(received(image), PHOTO_SIZE // self.encoder.input_size))
        return f


class ConstantGraph(nn.Module):
    """The encoder for W+: image uint8 [B, 256, 256, 3] -> f [B, C, 4, 4], the generator's constant."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.encoder = Constant.of(generator.synthesis)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        f: Tensor = self.encoder(image)
        # A copy per image: a constant would not have the batch's size.
        return f + 0 * image[:, :1, :1, :1].float()


class DetailGraph(nn.Module):
    """image uint8 [B, 256, 256, 3] -> w_m_plus [B, m, 512]."""

    def __init__(self, detail: Detail) -> None:
        super().__init__()
        self.detail = detail

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        w_m_plus: Tensor = self.detail(received(image))
        return w_m_plus


class ShiftGraph(nn.Module):
    """Moves one code along a direction, once per strength.

    f [C, s, s], w_m_plus [m, 512], direction [m, 512], strengths [K]
    -> f_batch [K, C, s, s], w_m_plus_batch [K, m, 512].
    """

    def forward(self, f: Tensor, w_m_plus: Tensor, direction: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        count = strengths.shape[0]
        return f.expand(count, *f.shape), w_m_plus + strengths[:, None, None] * direction


def graphs(domain: str, cuts: Sequence[int] = EVERY_CUT) -> list[Graph]:
    """The graphs of a domain whose weights exist; a network is loaded only when its graph is built."""
    weights = generator_file(domain)
    shape = read_shape(weights)
    every: list[Graph] = []
    common = (
        Graph(
            name=f"{domain}_mapping",
            build=lambda: MappingGraph(load_generator(domain)),
            inputs={"z": torch.zeros(2, STYLE_DIM), "psi": torch.ones(2, 1)},
            outputs=("w",),
            weights=(weights,),
        ),
        Graph(
            name=f"{domain}_coarse",
            build=lambda: CoarseGraph(load_generator(domain), cut=CUT),
            inputs={"w": torch.zeros(2, shape.coarse_styles(CUT), STYLE_DIM)},
            outputs=("f",),
            weights=(weights,),
        ),
    )
    shared = (faces_graph(),) if shows_faces(domain) else ()
    for cut in cuts:
        every += [*((*common, *shared) if cut == CUT else ()), *_cut_graphs(domain, cut, shape)]
    return [graph for graph in every if all(path.exists() for path in graph.weights)]


def _cut_graphs(domain: str, cut: int, shape: Synthesis) -> list[Graph]:
    """The graphs of one cut."""
    weights, name = generator_file(domain), prefix(domain, cut)
    learned, head = encoder_file(domain, cut), detail_file(domain, cut)
    f = torch.zeros(2, shape.f_channels(cut), cut, cut)
    w_m_plus = torch.zeros(2, shape.fine_styles(cut), STYLE_DIM)
    image = torch.zeros(2, PHOTO_SIZE, PHOTO_SIZE, 3, dtype=torch.uint8)

    def generator() -> Generator:
        return load_generator(domain)

    def encoder() -> nn.Module:
        if cut == W_PLUS:
            return ConstantGraph(generator())
        return EncoderGraph(load_encoder(learned, generator=generator().fingerprint))

    looks = looks_graphs(domain, name, cut, shape, generator)
    found = [
        Graph(
            name=f"{name}_fine",
            build=lambda: FineGraph(generator()),
            inputs={"f": f, "w_m_plus": w_m_plus},
            outputs=("image",),
            weights=(weights,),
        ),
        Graph(
            name=f"{name}_encoder",
            build=encoder,
            inputs={"image": image},
            outputs=("f",),
            weights=(weights,) if cut == W_PLUS else (weights, learned),
        ),
        Graph(
            name=f"{name}_detail",
            build=lambda: DetailGraph(load_detail(head, generator=generator().fingerprint)),
            inputs={"image": image},
            outputs=("w_m_plus",),
            weights=(weights, head, BACKBONE),
        ),
        Graph(
            name=f"{name}_shift",
            build=ShiftGraph,
            inputs={"f": f[0], "w_m_plus": w_m_plus[0], "direction": w_m_plus[0], "strengths": torch.zeros(3)},
            outputs=("f_batch", "w_m_plus_batch"),
            weights=(),
            batched=False,
            dynamic={name: {0: "strengths"} for name in ("strengths", "f_batch", "w_m_plus_batch")},
            largest=ROLES["shift"].largest,
        ),
    ]
    # With coarse styles the shift moves f, too.
    replaced = {graph.name for graph in looks}
    return [graph for graph in found if graph.name not in replaced] + looks


def stamp(graph: Graph, variant: Variant = PLAIN) -> str:
    """A sha256 over everything that the exported file depends on."""
    versions = [f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript", "onnx-ir")]
    digest = hashlib.sha256(f"{versions} {OPSET} {variant.target}".encode())
    for path in (*(ROOT / code for code in (*CODE, *graph.code)), *graph.weights):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def module_of(graph: Graph, variant: Variant) -> nn.Module:
    """The graph's module in evaluation mode, with the generator as the variant computes it."""
    module = graph.build().eval()
    if variant.for_cpu:
        for part in module.modules():
            if isinstance(part, MobileStyleGAN):
                part.use_cache()
    if variant.precision != "fp32" and isinstance(module, CoarseGraph | FineGraph):
        module.synthesis.lower(variant.dtype)
    return module


def build(
    domain: str,
    variant: Variant = PLAIN,
    *,
    cuts: Sequence[int] = EVERY_CUT,
    force: bool = False,
    begins: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Export the graphs that are out of date, and return their names.

    ``begins`` is called with each name before its export, which can take a minute.
    """
    written = []
    for graph in graphs(domain, cuts):
        target = variant.file(graph.name)
        mark = stamp(graph, variant)
        if not force and target.exists() and recorded(target).get("stamp") == mark:
            continue
        begins(graph.name)
        module = module_of(graph, variant)
        write = to_onnx if variant.format == "onnx" else to_torchscript
        write(graph, module, target)
        if variant.for_cpu and graph.eight_bits is not None:
            in_eight_bits(target, graph.eight_bits)
        record_of(target).write_text(json.dumps({"stamp": mark, **signature(graph, module)}))
        written.append(graph.name)
    return written


def record_of(target: Path) -> Path:
    """The file beside an exported one that holds its stamp and its signature."""
    return target.with_name(f"{target.name}.json")


def recorded(target: Path) -> dict[str, Any]:
    """The stamp and the signature of an exported file; empty if unknown."""
    try:
        found = json.loads(record_of(target).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export graphs``."""
    parser.add_argument("--force", action="store_true", help="export all graphs, even those that are up to date")
    add_cuts(parser)
    add_variant(parser)


def add_cuts(parser: argparse.ArgumentParser) -> None:
    """The option ``--cuts``."""
    parser.add_argument(
        "--cuts",
        type=int,
        nargs="+",
        choices=EVERY_CUT,
        default=EVERY_CUT,
        help="sides of f: 16, 8, and 4 for W+ (default: all)",
    )


def run(args: argparse.Namespace) -> None:
    """Export the graphs that are out of date, and print their names."""

    def begins(name: str) -> None:
        print(f"exporting {name} ...", flush=True)

    written = build(args.domain, variant_of(args), cuts=args.cuts, force=args.force, begins=begins)
    print("graphs: " + (", ".join(written) if written else "up to date"))
