"""The codes that the looks give for a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from export.training.looks.draws import Batch

TRUE_STYLES, TRUE_F = 0.4, 0.2  # shares of samples that are shown with their true styles, and with their true f


@dataclass
class Codes:
    """The codes that the looks give for a batch.

    Attributes:
        first: f and w_m_plus after the first look, normalised, and what the short head paints of them.
        f: float32 [B, C, cut, cut], after the second.
        w: float32 [B, m, 512], after the second.
        w_coarse: float32 [B, coarse, 512].
        base: float32 [B, C, cut, cut], T(G_coarse(w_c)).
        f_edited: f, moved by the edit.
        w_edited: w, moved by the edit.
    """

    first: tuple[Tensor, Tensor, Tensor]
    f: Tensor
    w: Tensor
    w_coarse: Tensor
    base: Tensor
    f_edited: Tensor
    w_edited: Tensor


def length(x: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """Root of the mean square over ``dims``, which stay; its gradient is finite at 0."""
    return (x.square().mean(dims, keepdim=True) + 1e-8).sqrt()


def swapped(batch: Batch, codes: Codes, rng: torch.Generator) -> Codes:
    """Give some samples their true styles, and some their true f: parts that only fit each other do not edit."""
    n, coarse = batch.samples, batch.w.shape[1] - codes.w.shape[1]
    pick = torch.rand(n, generator=rng).to(codes.w.device)
    w = torch.where((pick < TRUE_STYLES)[:, None, None], batch.w[:, coarse:], codes.w[:n])
    f = torch.where((pick >= 1 - TRUE_F)[:, None, None, None], batch.f, codes.f[:n])
    w, f = torch.cat([w, codes.w[n:]]), torch.cat([f, codes.f[n:]])
    edited = codes.f_edited + (f - codes.f), codes.w_edited + (w - codes.w)
    return replace(codes, f=f, w=w, f_edited=edited[0], w_edited=edited[1])
