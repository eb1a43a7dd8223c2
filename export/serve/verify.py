"""``python -m export verify``: the same inputs through torch, the exported files and the served models.

Prints, for every output, the largest difference to torch and the PSNR, and fails if one is over its
bound: ``FLOAT_BOUND`` times the largest value for float tensors, ``IMAGE_BOUND`` grey levels for images
(float rounding may tip a pixel from one level to the next). Of half precision a PSNR of ``HALF_PSNR`` is asked, of what
is computed in 8 bits one of ``EIGHT_BITS_PSNR``.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import tritonclient.grpc as triton
from numpy.typing import NDArray
from torch import Tensor, nn
from tritonclient.utils import np_to_triton_dtype

from assets.paths import REPOSITORY
from export.generator import load_generator, shows_faces
from export.samples import at_size
from export.serve.exporters import load_torchscript
from export.serve.graph import Graph, sent
from export.serve.graphs import CUT, EVERY_CUT, add_cuts, graphs
from export.serve.looks import moves_f
from export.serve.repository import coders_of, painter_of
from export.serve.variant import PLAIN, Variant, variant_of
from export.serve.variant import add_arguments as add_variant
from networks.mapping import STYLE_DIM
from protocol.cuts import prefix
from protocol.roles import FACES
from server.triton import LocalTriton

Array = NDArray[np.generic]
Arrays = dict[str, Array]
# A proxy would stand between this machine and itself; naming options drops the library's message size.
CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TIMEOUT = 120.0  # seconds a request
FLOAT_BOUND = 2e-5
IMAGE_BOUND = 1
HALF_PSNR = 45.0  # dB against float32
EIGHT_BITS_PSNR = 40.0
STRENGTHS = (-2.0, 0.0, 2.0)
TRANSFORM = [[0.8, -0.3, 0.1], [0.3, 0.8, -0.05]]  # a face that is turned and moved


class VerifyError(ValueError):
    """A served or exported model disagrees with torch."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One output of one model by one engine, against torch."""

    model: str
    output: str
    engine: str
    max_abs: float
    psnr: float  # dB, infinite where equal
    bound: float  # of max_abs, or of the PSNR
    rough: bool = False  # whether the bound is of the PSNR

    @property
    def passed(self) -> bool:
        """Whether the difference is within the bound."""
        return self.psnr >= self.bound if self.rough else self.max_abs <= self.bound


def compare(model: str, engine: str, expected: Arrays, found: Arrays, *, least: float | None = None) -> list[Parity]:
    """One row per output; peak for the PSNR is 255 for images, the largest value otherwise.

    Args:
        model: its name.
        engine: what gave ``found``.
        expected: outputs by name, of torch in float32.
        found: outputs by name.
        least: the PSNR in dB that is asked of a model that does not compute in float32.

    Raises:
        VerifyError: an output is missing or has another shape or dtype.
    """
    rows = []
    for name, reference in expected.items():
        value = found.get(name)
        if value is None or value.shape != reference.shape or value.dtype != reference.dtype:
            shape = "nothing" if value is None else f"{value.dtype} {value.shape}"
            raise VerifyError(f"{name} of {model} by {engine} is {shape}: expected {reference.dtype} {reference.shape}")
        difference = np.abs(value.astype(np.float64) - reference.astype(np.float64))
        image = reference.dtype == np.uint8
        peak = 255.0 if image else float(np.abs(reference).max())
        mse = float((difference**2).mean())
        rows.append(
            Parity(
                model=model,
                output=name,
                engine=engine,
                max_abs=float(difference.max()),
                psnr=math.inf if mse == 0 else 10 * math.log10(peak**2 / mse),
                bound=least if least is not None else IMAGE_BOUND if image else FLOAT_BOUND * peak,
                rough=least is not None,
            )
        )
    return rows


@torch.no_grad()
def inputs(domain: str, cuts: Sequence[int] = EVERY_CUT) -> dict[str, Arrays]:
    """Realistic inputs by model: seeded latents, the codes they map to, and the image they make."""
    generator = load_generator(domain)
    rng = torch.Generator().manual_seed(7)
    z, psi = torch.randn(2, STYLE_DIM, generator=rng), torch.tensor([[0.7], [1.0]])
    w = generator.mapping(z, psi)
    synthesis = generator.synthesis
    w_plus = w[:, None].repeat(1, synthesis.num_styles, 1)
    image = sent(at_size(synthesis(w_plus)))
    tensors = {
        f"{domain}_mapping": {"z": z, "psi": psi},
        f"{domain}_coarse": {"w": w_plus[:, : synthesis.coarse_styles(CUT)]},
    }
    if CUT in cuts and shows_faces(domain):
        tensors[FACES] = {"image": image[0]}
    for cut in cuts:
        name, count = prefix(domain, cut), synthesis.coarse_styles(cut)
        f, w_m_plus = synthesis.coarse(w_plus[:, :count], cut=cut), w_plus[:, count:]
        direction = 0.1 * torch.randn(w_m_plus.shape[1:], generator=rng)
        edit = {"f": f[0], "w_m_plus": w_m_plus[0], "direction": direction, "strengths": torch.tensor(STRENGTHS)}
        photo = {"image": image}
        if has_styles := moves_f(domain, cut):
            photo["transform"] = torch.tensor(TRANSFORM).expand(2, 2, 3)
        tensors |= {f"{name}_{role}": {"f": f, "w_m_plus": w_m_plus} for role in ("fine", "preview")}
        for graph in graphs(domain, [cut]):
            if graph.name == f"{name}_looks":  # the picture is of codes that these give, and of no others
                tensors[f"{name}_picture"] = dict(zip(graph.outputs, graph.build().eval()(image), strict=True))
        tensors |= {f"{name}_{role}": photo for role in ("styles", "invert")}
        tensors |= {f"{name}_{role}": {"image": image} for role in ("encoder", "detail", "looks")}
        if has_styles:
            edit = {"f": f[0], "w_m_plus": w_m_plus[0], "w_coarse": w_plus[0, :count]}
            edit |= {
                "transform": torch.tensor(TRANSFORM),
                "direction": 0.1 * torch.randn(w_plus.shape[1:], generator=rng),
            }
            edit["strengths"] = torch.tensor(STRENGTHS)
        tensors |= {f"{name}_{role}": edit for role in ("shift", "edit")}
    return {k: {n: t.contiguous().numpy() for n, t in v.items()} for k, v in tensors.items()}


@torch.no_grad()
def by_torch(module: Callable[..., Tensor | tuple[Tensor, ...]], outputs: tuple[str, ...], feed: Arrays) -> Arrays:
    """Outputs by name of a graph's module in eager torch."""
    found = module(*(torch.from_numpy(a) for a in feed.values()))
    found = (found,) if isinstance(found, Tensor) else found
    return {name: t.contiguous().numpy() for name, t in zip(outputs, found, strict=True)}


def by_onnxruntime(path: Path, feed: Arrays) -> Arrays:
    """Outputs by name of an exported file in bare ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


@torch.no_grad()
def by_torchscript(path: Path, names: tuple[str, ...], feed: Arrays) -> Arrays:
    """Outputs by name of an exported TorchScript file on the CPU."""
    return by_torch(load_torchscript(path), names, feed)


def by_triton(client: triton.InferenceServerClient, model: str, feed: Arrays) -> Arrays:
    """Outputs by name of a served model."""
    tensors = []
    for name, value in feed.items():
        tensor = triton.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    result = client.infer(model, tensors, client_timeout=TIMEOUT)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def references(domain: str, feeds: dict[str, Arrays], cuts: Sequence[int] = EVERY_CUT) -> dict[str, Arrays]:
    """What torch says every model should give; ensembles are composed here from their parts."""
    built: dict[str, tuple[Graph, nn.Module]] = {g.name: (g, g.build().eval()) for g in graphs(domain, cuts)}

    def part(name: str, feed: Arrays) -> Arrays:
        graph, module = built[name]
        return by_torch(module, graph.outputs, {name: feed[name] for name in graph.inputs})

    expected = {name: part(name, feeds[name]) for name in built}
    for name in (prefix(domain, cut) for cut in cuts):
        if coders := coders_of(name, built):
            feed = feeds[f"{name}_invert"]
            code = {output: value for coder in coders for output, value in part(coder, feed).items()}
            styles = part(f"{name}_styles", feed) if f"{name}_styles" in built else {}
            image = part(painter_of(name, code), code)["image"]
            expected[f"{name}_invert"] = code | styles | {"reconstruction": image}
        moved = part(f"{name}_shift", feeds[f"{name}_edit"])
        batch = {"f": moved["f_batch"], "w_m_plus": moved["w_m_plus_batch"]}
        expected[f"{name}_edit"] = {"images": part(f"{name}_fine", batch)["image"]}
    return expected


def by_file(graph: Graph, variant: Variant, feed: Arrays) -> Arrays:
    """Outputs by name of a graph's exported file."""
    if variant.format == "onnx":
        return by_onnxruntime(variant.file(graph.name), feed)
    return by_torchscript(variant.file(graph.name), graph.outputs, feed)


def asked(model: str, exported: dict[str, Graph], variant: Variant) -> float | None:
    """The PSNR that is asked of a model; None of one that computes in float32."""
    parts = [model]
    if model.endswith("_invert"):
        name = model.removesuffix("_invert")
        parts = [graph for graph in exported if graph.rpartition("_")[0] == name]
    if variant.for_cpu and any(part in exported and exported[part].eight_bits for part in parts):
        return EIGHT_BITS_PSNR
    return None if variant.precision == "fp32" else HALF_PSNR


def verify(
    domain: str,
    infer: Callable[[str, Arrays], Arrays],
    variant: Variant = PLAIN,
    *,
    cuts: Sequence[int] = EVERY_CUT,
) -> list[Parity]:
    """All rows of the table; ``infer`` asks the server for a model's outputs."""
    feeds = inputs(domain, cuts)
    exported = {graph.name: graph for graph in graphs(domain, cuts)}
    rows = []
    for model, expected in references(domain, feeds, cuts).items():
        least = asked(model, exported, variant)
        if model in exported:  # and no ensemble
            found = by_file(exported[model], variant, feeds[model])
            rows += compare(model, variant.backend, expected, found, least=least)
        rows += compare(model, "served", expected, infer(model, feeds[model]), least=least)
    return rows


def told_bound(row: Parity) -> str:
    """A row's bound in words."""
    return f"{row.bound:g} dB" if row.rough else f"{row.bound:.2g}"


def table(rows: list[Parity]) -> str:
    """The rows as a Markdown table."""
    lines = ["| model | output | engine | max abs | bound | PSNR (dB) | |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r.model} | {r.output} | {r.engine} | {r.max_abs:.2g} | {told_bound(r)} | "
        f"{'equal' if math.isinf(r.psnr) else f'{r.psnr:.1f}'} | {'ok' if r.passed else 'FAILED'} |"
        for r in rows
    ]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export verify``."""
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="default: model_repository")
    parser.add_argument(
        "--url",
        default=os.environ.get("UNALIGNED_URL"),
        help="gRPC address of a server that runs; default: $UNALIGNED_URL, else one is started",
    )
    add_cuts(parser)
    add_variant(parser)


def run(args: argparse.Namespace) -> None:
    """Print the table.

    Raises:
        VerifyError: a row is over its bound.
    """
    with nullcontext() if args.url else LocalTriton(args.repository) as server:
        url = server.url if server else args.url
        with triton.InferenceServerClient(url, channel_args=CHANNEL) as client:
            rows = verify(
                args.domain, lambda model, feed: by_triton(client, model, feed), variant_of(args), cuts=args.cuts
            )
    print(table(rows))
    failed = [f"{r.model} {r.output} ({r.engine})" for r in rows if not r.passed]
    if failed:
        raise VerifyError("above the bound: " + ", ".join(failed))
