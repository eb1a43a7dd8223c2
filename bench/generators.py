"""Time per image of the fine half of a generator: ``python -m bench generators``.

StyleGAN2 with random weights and FFHQ's MobileStyleGAN run as the equations are written (:mod:`bench.literal`), in
PyTorch, and as exported files of every format and precision. In each round every engine runs once, in rotating order.
Ratios are taken within a round, so that other work on the machine affects both sides.

Exceptions::

    ValueError
    +-- GeneratorsError  an option is out of range, or there is no CUDA device
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bench import literal, page
from bench.table import head
from export.generator import load_generator
from export.serve.exporters import load_torchscript, to_onnx, to_torchscript
from export.serve.graph import Graph
from export.serve.variant import Variant
from networks.mapping import STYLE_DIM
from networks.mobilestylegan import MobileStyleGAN
from networks.stylegan2 import ModulatedConv, Shape, StyleGAN2, ToRGB, published
from networks.synthesis import Synthesis

MARK = "generators"
CUT = 16
SIZES = (256, 1024)
VARIANTS = (
    Variant(),
    Variant(precision="fp16"),
    Variant(format="torchscript"),
    Variant(format="torchscript", precision="fp16"),
    Variant(format="torchscript", precision="bf16"),
)
WARM_UP = 2


class GeneratorsError(ValueError):
    """An option is out of range, or there is no CUDA device."""


@dataclass
class Runner:
    """One way to run the fine half."""

    name: str
    run: Callable[[], Tensor]
    megabytes: float | None
    psnr: float = math.inf  # dB, compared with eager float32
    seconds: list[float] = field(default_factory=list)


class Fine(nn.Module):
    """f [B, C, cut, cut], w_m_plus [B, n, 512] -> image [B, 3, S, S], float32."""

    def __init__(self, synthesis: Synthesis) -> None:
        super().__init__()
        self.synthesis = synthesis

    def forward(self, f: Tensor, w_m_plus: Tensor) -> Tensor:
        """Render; shapes as above."""
        return self.synthesis.fine(f, w_m_plus)


def stylegan2(size: int) -> StyleGAN2:
    """Config F with random weights, as before training."""
    torch.manual_seed(size)
    network = StyleGAN2(Shape(channels=published(size), clamp=256))
    for module in network.modules():
        if isinstance(module, ModulatedConv | ToRGB):
            module.modulation.bias.data.fill_(1)
    return network.eval().requires_grad_(False)


def runners(make: Callable[[], Synthesis], device: torch.device, folder: Path) -> list[Runner]:
    """All engines on one network; the first is the baseline."""
    network = make()
    rng = torch.Generator().manual_seed(0)
    w_m_plus = torch.randn(1, network.fine_styles(CUT), STYLE_DIM, generator=rng)
    with torch.no_grad():
        f = network.coarse(torch.randn(1, network.coarse_styles(CUT), STYLE_DIM, generator=rng), cut=CUT)
    here = f.to(device), w_m_plus.to(device)
    network.to(device)
    found = []
    if isinstance(network, StyleGAN2):
        found.append(Runner("literal", lambda: literal.fine(network, *here), None))
    found.append(Runner("torch", lambda: network.fine(*here), None))
    for variant in VARIANTS:
        if device.type == "cpu" and (variant.format, variant.precision) == ("torchscript", "fp16"):
            continue  # emulated on a CPU and many times slower
        lowered = make()
        if variant.precision != "fp32":
            lowered.lower(variant.dtype)
        graph = Graph(
            name="fine",
            build=partial(Fine, lowered),
            inputs={"f": f, "w_m_plus": w_m_plus},
            outputs=("image",),
            weights=(),
        )
        file = folder / f"{len(found)}.model"
        (to_onnx if variant.format == "onnx" else to_torchscript)(graph, Fine(lowered).eval(), file)
        run = by_onnx(file, device, f, w_m_plus) if variant.format == "onnx" else by_script(file, here, device)
        found.append(Runner(f"{variant.backend} {variant.precision}", run, file.stat().st_size / 1e6))
    reference = network.fine(*here).cpu()
    for runner in found:
        error = float((runner.run().cpu() - reference).square().mean())
        if runner.name != "torch":
            runner.psnr = 10 * math.log10(float(reference.max() - reference.min()) ** 2 / error) if error else math.inf
    return found


def by_onnx(file: Path, device: torch.device, f: Tensor, w_m_plus: Tensor) -> Callable[[], Tensor]:
    """ONNX Runtime in this process, from and to CPU memory."""
    providers = ["CUDAExecutionProvider"] if device.type == "cuda" else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(file, providers=providers)
    feed = {"f": f.numpy(), "w_m_plus": w_m_plus.numpy()}
    return lambda: torch.from_numpy(np.asarray(session.run(None, feed)[0]))


def by_script(file: Path, here: tuple[Tensor, Tensor], device: torch.device) -> Callable[[], Tensor]:
    """TorchScript in this process."""
    module = load_torchscript(file, device)

    def run() -> Tensor:
        image = module(*here)
        assert isinstance(image, Tensor)
        return image

    return run


@torch.inference_mode()
def measure(found: list[Runner], *, rounds: int, device: torch.device) -> None:
    """Run every engine ``rounds`` times and record the seconds."""
    for turn in tqdm(range(-WARM_UP, rounds), desc="rounds", disable=None):
        for i in range(len(found)):
            runner = found[(i + turn) % len(found)]
            began = time.perf_counter()
            runner.run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= 0:
                runner.seconds.append(time.perf_counter() - began)


def table(results: dict[str, list[Runner]], machine: str) -> str:
    """A Markdown table, below the machine it was measured on."""
    titles = ["fine half", "engine", "ms an image", "times as fast as the first", "min..max", "MB", "PSNR to torch, dB"]
    lines = [machine, "", *head(titles)]
    for name, found in results.items():
        for runner in found:
            ratios = [a / b for a, b in zip(found[0].seconds, runner.seconds, strict=True)]
            size = "" if runner.megabytes is None else f"{runner.megabytes:.0f}"
            psnr = "" if runner.name == "torch" else "equal" if math.isinf(runner.psnr) else f"{runner.psnr:.0f}"
            lines.append(
                f"| {name} | {runner.name} | {1000 * median(runner.seconds):.0f} | **{median(ratios):.2f}** "
                f"| {min(ratios):.2f}..{max(ratios):.2f} | {size} | {psnr} |"
            )
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench generators``."""
    parser.add_argument("--rounds", type=int, default=7, help="rounds, in which each engine runs once (default: 7)")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=SIZES,
        choices=(32, 64, 128, 256, 512, 1024),
        help="resolutions of StyleGAN2 (default: 256 1024)",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: cuda if present",
    )
    parser.add_argument("--no-ffhq", action="store_true", help="skip FFHQ's generator")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help=f"write the table between the marks of {MARK} in a file"
    )


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        GeneratorsError: an option is out of range, or there is no CUDA device.
    """
    if not 1 <= args.rounds <= 100:
        raise GeneratorsError("`--rounds` must be from 1 to 100")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise GeneratorsError("this machine has no CUDA device")
    page.check(args.write, MARK)
    busy, device = os.getloadavg()[0], torch.device(args.device)
    makers: dict[str, Callable[[], Synthesis]] = {f"StyleGAN2, {s} px": partial(stylegan2, s) for s in args.sizes}
    if not args.no_ffhq:
        makers["MobileStyleGAN, 1024 px"] = ffhq
    results = {}
    for name, make in makers.items():
        with TemporaryDirectory() as folder:
            results[name] = runners(make, device, Path(folder))
            measure(results[name], rounds=args.rounds, device=device)
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{len(os.sched_getaffinity(0))} CPU cores"
    machine = (
        f"{what} ({platform.system()} {platform.machine()}), load average {busy:.1f} before the start; torch "
        f"{torch.__version__}, ONNX Runtime {onnxruntime.__version__}; {args.rounds} rounds, batch 1, cut at 16x16."
    )
    print(table(results, machine))
    page.write(args.write, table(results, machine), MARK)


def ffhq() -> MobileStyleGAN:
    """The project's own generator."""
    synthesis = load_generator("ffhq").synthesis
    assert isinstance(synthesis, MobileStyleGAN)
    return synthesis
