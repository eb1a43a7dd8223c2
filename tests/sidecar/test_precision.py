"""Half precision is used where a device computes in it, and the side-car says which way it went."""

from __future__ import annotations

import pytest
import torch

from networks.precision import fast_half, half
from sidecar.cli import parser

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("amx", "avx", "fast", "why"),
    [
        (True, True, True, "the processor has AMX"),
        (False, True, True, "the processor has AVX512_BF16"),
        (False, False, False, "would emulate bfloat16"),
    ],
)
def test_emulated_half_precision_is_not_used(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx: bool, fast: bool, why: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    assert fast_half(CPU)[0] == fast
    assert why in fast_half(CPU)[1]
    with half(CPU):
        assert torch.is_autocast_enabled("cpu") == fast
    with half(CPU, wanted=False):
        assert not torch.is_autocast_enabled("cpu")


def test_help_says_which_precision_this_machine_gets() -> None:
    text = " ".join(parser().format_help().split())
    assert f"Convolutions run in {'bfloat16' if fast_half(CPU)[0] else 'float32'} on this machine: " in text


def test_a_pytorch_without_the_question_means_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not fast_half(CPU)[0]
