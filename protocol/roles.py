"""The roles of served models, as data: which there are, for which cuts, and how large their batches may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a served model does.

    Attributes:
        largest_batch: 0 for a model that makes a batch of one request by itself.
        largest: the largest size of an input's variable dimension, by its name; every such input has one.
        each_cut: whether every cut has its own; otherwise only the default one has it.
    """

    largest_batch: int
    largest: Mapping[str, int] = field(default_factory=dict)
    each_cut: bool = True


MAX_STRENGTHS: Final = 8
ROLES: Final[Mapping[str, Role]] = {
    "mapping": Role(largest_batch=64, each_cut=False),
    "coarse": Role(largest_batch=16, each_cut=False),
    "fine": Role(largest_batch=8),
    "encoder": Role(largest_batch=16),
    "detail": Role(largest_batch=16),
    "invert": Role(largest_batch=8),
    "shift": Role(largest_batch=0, largest={"strengths": MAX_STRENGTHS}),
    "edit": Role(largest_batch=0, largest={"strengths": MAX_STRENGTHS}),
}
