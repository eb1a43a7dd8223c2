"""``bench generators``: the literal implementation, the engines on a small network, the table."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import generators, literal
from bench.__main__ import main
from bench.generators import VARIANTS, Runner, measure, runners, table
from networks.stylegan2 import Shape, StyleGAN2


def small(channels: tuple[int, ...] = (12, 12, 12, 10, 8)) -> StyleGAN2:
    torch.manual_seed(0)
    network = StyleGAN2(Shape(channels=channels, clamp=2.0))
    for name, buffer in network.named_buffers():
        if name.endswith("noise"):
            buffer.normal_()
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("cut", [8, 16])
def test_the_literal_implementation_gives_the_same_images(cut: int) -> None:
    network = small()
    rng = torch.Generator().manual_seed(1)
    f = torch.randn(2, network.f_channels(cut), cut, cut, generator=rng)
    w = torch.randn(2, network.fine_styles(cut), 512, generator=rng)
    image = network.fine(f, w)
    assert (literal.fine(network, f, w) - image).abs().max() <= 1e-5 * image.abs().max()


@pytest.mark.slow
def test_engines_take_turns_and_agree(tmp_path: Path) -> None:
    # Of 32 px, because an export takes seconds for each layer; with weights that outweigh the file's other parts.
    found = runners(partial(small, (48, 48, 48, 32)), torch.device("cpu"), tmp_path)
    names = [engine.name for engine in found]
    assert names == [
        "literal", "torch", "onnxruntime fp32", "onnxruntime fp16", "pytorch fp32", "pytorch bf16",
    ]  # fmt: skip
    assert {f"{v.backend} {v.precision}" for v in VARIANTS} == {*names[2:], "pytorch fp16"}
    for engine in found:
        assert engine.psnr > (100 if "fp32" in engine.name or engine.megabytes is None else 35)
    by_name = {engine.name: engine.megabytes or 0.0 for engine in found}
    assert by_name["onnxruntime fp16"] < by_name["onnxruntime fp32"]
    measure(found, rounds=3, device=torch.device("cpu"))
    assert {len(engine.seconds) for engine in found} == {3}


def test_ratios_are_taken_within_rounds() -> None:
    first = Runner("literal", lambda: torch.zeros(1), None, seconds=[4.0, 8.0, 2.0])
    second = Runner("onnxruntime fp32", lambda: torch.zeros(1), 12.3, psnr=math.inf, seconds=[2.0, 2.0, 2.0])
    rows = table({"a network": [first, second]}, "a machine").splitlines()
    assert rows[0] == "a machine"
    assert rows[-1] == "| a network | onnxruntime fp32 | 2000 | **2.00** | 1.00..4.00 | 12 | equal |"


def test_bad_options_are_errors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators.torch.cuda, "is_available", lambda: False)
    for arguments, said in (
        (["--rounds=0"], "`--rounds` must be from 1 to 100"),
        (["--device=cuda"], "no CUDA device"),
    ):
        assert main(["generators", *arguments]) == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
