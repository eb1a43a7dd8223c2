"""A side-car of a small generator with random weights: the real service and optimisation, and a start of seconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from server.sidecar import LocalSidecar

DOMAIN, GENERATOR = "small", "5" * 16
# What it refines: the shapes of f and w_M+.
F, W = (24, 16, 16), (10, 512)
PROGRAM = (sys.executable, "-m", "server_tests.sidecar.small")


def small_sidecar(*options: str, **others: Any) -> LocalSidecar:
    """A `LocalSidecar` of it; the options are of ``python -m sidecar``."""
    return LocalSidecar(program=(*PROGRAM, "side-car"), arguments=["--compile=off", *options], **others)


def engine() -> Any:
    """A StyleGAN2 of 256 px, with Alex in place of VGG; warmed up."""
    import torch

    from assets.perceptual import stlpips
    from judges.reconstruction import Judge
    from networks.generator_file import Generator
    from networks.mapping import MappingNetwork
    from networks.pnorm import load_pnorm
    from networks.stylegan2 import Shape, StyleGAN2
    from sidecar.optimise.engine import LEARNED, TorchEngine

    torch.manual_seed(0)
    synthesis = StyleGAN2(Shape(channels=(24, 24, 24, 16, 12, 8, 8))).eval().requires_grad_(requires_grad=False)
    mapping = MappingNetwork(depth=2).eval().requires_grad_(requires_grad=False)
    alex = stlpips("alex")
    made = TorchEngine(
        Generator(mapping=mapping, synthesis=synthesis, fingerprint=GENERATOR),
        pnorm=load_pnorm(LEARNED / "ffhq" / "pnorm.safetensors"), perceptual=alex, judge=Judge(alex, alex),
        domain=DOMAIN, device=torch.device("cpu"), compiled=False,
    )  # fmt: skip
    made.warm_up()
    return made


def main(arguments: Sequence[str]) -> None:
    """``side-car OPTIONS``, or ``start OPTIONS`` of the launcher with that side-car."""
    what, *options = arguments
    if what == "side-car":
        from sidecar import cli as service

        service._loader = lambda _options: engine  # type: ignore[assignment]
        service.main(options)
    from server import cli

    cli.LocalSidecar = partial(LocalSidecar, program=(*PROGRAM, "side-car"))  # type: ignore[misc,assignment]
    sys.exit(cli.main([what, *options]))


if __name__ == "__main__":
    main(sys.argv[1:])
