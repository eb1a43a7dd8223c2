"""The roles of served models, as data: which there are, for which cuts, and how large their batches may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a served model does.

    Attributes:
        largest_batch: 0 for a model that makes a batch of one request by itself.
        each_cut: whether every cut has its own; otherwise only the default one has it.
    """

    largest_batch: int
    each_cut: bool = True


ROLES: Final[Mapping[str, Role]] = {
    "mapping": Role(largest_batch=64, each_cut=False),
    "coarse": Role(largest_batch=16, each_cut=False),
    "fine": Role(largest_batch=8),
    "encoder": Role(largest_batch=16),
    "detail": Role(largest_batch=16),
    "invert": Role(largest_batch=8),
    "shift": Role(largest_batch=0),
    "edit": Role(largest_batch=0),
}
