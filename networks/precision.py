"""Whether a device computes in bfloat16, or only emulates it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def fast_half(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 is worth using on a device, and why in a few words for a log.

    Emulated bfloat16 gives nothing but rounding: a step takes up to 15 times as long as in float32.
    """
    if device.type == "cuda":
        found, what = torch.cuda.is_bf16_supported(including_emulation=False), torch.cuda.get_device_name(device)
        return found, f"{what} {'computes' if found else 'only emulates'} bfloat16"
    # The private names are all that PyTorch has for this; one that goes missing means float32.
    known = torch.cpu
    for name, instructions in (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX512_BF16")):
        if getattr(known, name, bool)():
            return True, f"the processor has {instructions}"
    return False, "the processor has neither AMX nor AVX512_BF16 and would emulate bfloat16"


def half(device: torch.device, *, wanted: bool = True) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where that is wanted and fast; otherwise float32 stays."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and fast_half(device)[0])


def in_half(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """A function of tensors that computes as in :func:`half` and returns float32."""

    def inside(*tensors: Tensor) -> Tensor:
        with half(device):
            return function(*tensors).float()

    return inside
