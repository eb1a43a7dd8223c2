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
        each_domain: whether every domain has it; otherwise only those whose networks are trained.
        shared: whether one model, of the role's own name, serves all domains.
    """

    largest_batch: int
    largest: Mapping[str, int] = field(default_factory=dict)
    each_cut: bool = True
    each_domain: bool = True
    shared: bool = False


MAX_STRENGTHS: Final = 8
# Longest side of a photo in which faces are looked for; larger ones are shrunk before they are sent.
MAX_PHOTO_SIDE: Final = 1920
# Faces that the finder returns at most, the clearest ones.
MAX_FACES: Final = 64
# The face finder; models of domains that show faces name it in their parameter FACE_FINDER.
FACES: Final = "faces"
FACE_FINDER: Final = "face_finder"
# Begins the names of the tensors of a code that is rendered and not edited.
FAITHFUL: Final = "faithful_"
ROLES: Final[Mapping[str, Role]] = {
    "mapping": Role(largest_batch=64, each_cut=False),
    "coarse": Role(largest_batch=16, each_cut=False),
    "fine": Role(largest_batch=8),
    "encoder": Role(largest_batch=16),
    "detail": Role(largest_batch=16),
    "looks": Role(largest_batch=16, each_cut=False, each_domain=False),
    "styles": Role(largest_batch=16, each_cut=False, each_domain=False),
    "preview": Role(largest_batch=16, each_cut=False, each_domain=False),
    "picture": Role(largest_batch=8, each_cut=False, each_domain=False),
    "invert": Role(largest_batch=8),
    "shift": Role(largest_batch=0, largest={"strengths": MAX_STRENGTHS}),
    "edit": Role(largest_batch=0, largest={"strengths": MAX_STRENGTHS}),
    FACES: Role(largest_batch=0, largest={"image": MAX_PHOTO_SIDE}, each_cut=False, shared=True),
}
