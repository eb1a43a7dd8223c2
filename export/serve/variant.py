"""In which file format, and with which numbers, a graph is exported."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from assets.paths import BUILD

Format = Literal["onnx", "torchscript"]
Precision = Literal["fp32", "fp16", "bf16"]
Target = Literal["cpu", "gpu"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt"}
BACKENDS: dict[Format, str] = {"onnx": "onnxruntime", "torchscript": "pytorch"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class VariantError(ValueError):
    """There is no such export."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to export a graph.

    Attributes:
        format: ``onnx`` for Triton's onnxruntime backend, ``torchscript`` for its pytorch backend.
        precision: of the convolutions in the generator's blocks; styles, sums and what goes over the wire stay as they
            are. ONNX Runtime has no convolution in bf16.
        target: what ONNX graphs are for. On a CPU the looks and the picture head compute in 8 bits, and the generator's
            largest maps are made in strips; neither is meant for a GPU.
    """

    format: Format = "onnx"
    precision: Precision = "fp32"
    target: Target = "cpu"

    def __post_init__(self) -> None:
        if self.format == "onnx" and self.precision == "bf16":
            raise VariantError(
                "ONNX Runtime has no convolutions in bf16: pass --format torchscript or --precision fp16"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions."""
        return DTYPES[self.precision]

    @property
    def for_cpu(self) -> bool:
        """Whether graphs are written as a CPU computes them fastest."""
        return self.format == "onnx" and self.target == "cpu"

    @property
    def options(self) -> str:
        """What to add to a command for this variant."""
        return "".join(
            f" --{name} {value}"
            for name, value, plain in (
                ("format", self.format, "onnx"),
                ("precision", self.precision, "fp32"),
                ("target", self.target, "cpu"),
            )
            if value != plain
        )

    @property
    def backend(self) -> str:
        """The backend of Triton that runs it."""
        return BACKENDS[self.format]

    @property
    def served(self) -> str:
        """Its file's name in the model repository."""
        return f"model{SUFFIXES[self.format]}"

    def file(self, model: str) -> Path:
        """The exported graph of a model, before it becomes a version in the repository."""
        precision = "" if self.precision == "fp32" else f".{self.precision}"
        return BUILD / "graphs" / f"{model}{precision}{SUFFIXES[self.format]}"


PLAIN = Variant()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a variant."""
    parser.add_argument("--format", choices=get_args(Format), default="onnx", help="default: onnx")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="of the generator's convolutions (default: fp32)",
    )
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        default="cpu",
        help="cpu (default) computes the looks of ONNX graphs in 8 bits, gpu does not",
    )


def variant_of(args: argparse.Namespace) -> Variant:
    """The variant of parsed options.

    Raises:
        VariantError: there is none such.
    """
    return Variant(format=args.format, precision=args.precision, target=args.target)
