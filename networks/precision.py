"""Whether a device computes in bfloat16, or only emulates it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def fast_half(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 is worth using on a device, and the reason, for a log.

    Emulated bfloat16 is not: a step takes up to 15 times as long as in float32.
    """
    if device.type == "cuda":
        found, what = torch.cuda.is_bf16_supported(including_emulation=False), torch.cuda.get_device_name(device)
        return found, f"{what} {'computes' if found else 'only emulates'} bfloat16"
    # PyTorch has only private names for this; if one disappears, float32 is used.
    known = torch.cpu
    for name, instructions in (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX512_BF16")):
        if getattr(known, name, bool)():
            return True, f"the processor has {instructions}"
    return False, "the processor has neither AMX nor AVX512_BF16 and would emulate bfloat16"


def half(device: torch.device, *, wanted: bool = True) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where that is wanted and fast; float32 otherwise."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and fast_half(device)[0])


def in_half(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The function computed under :func:`half`, returning float32."""

    def inside(*tensors: Tensor) -> Tensor:
        with half(device):
            return function(*tensors).float()

    return inside
