"""What the client reports about a server and its models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.files.inversion import Inversion
from client.triton.transport import ServerInfo
from protocol.cuts import CUTS, DEFAULT_CUT, W_PLUS
from protocol.roles import ROLES

# The roles that every domain has.
MODELS: Final = tuple(name for name, role in ROLES.items() if role.each_domain and not role.shared)
# The roles that all domains share.
SHARED: Final = tuple(name for name, role in ROLES.items() if role.shared)
# The roles of the other cuts, which a server may leave out.
MORE: Final = tuple(name for name, role in ROLES.items() if role.each_cut)
MORE_CUTS: Final = tuple(cut for cut in (*CUTS, W_PLUS) if cut != DEFAULT_CUT)


@dataclass(frozen=True, eq=False)
class InversionResult:
    """An inversion and what it shows: ``reconstruction``, uint8 RGB [1024, 1024, 3]."""

    inversion: Inversion
    reconstruction: NDArray[np.uint8]


@dataclass(frozen=True)
class ModelStatus:
    """One model of the domain: served at all, ready, in which versions, and whether the default method needs it."""

    name: str
    served: bool
    ready: bool
    versions: tuple[str, ...]
    needed: bool = True


@dataclass(frozen=True)
class Status:
    """The server as the client sees it; ``generator`` and ``cut`` are None if no model states them."""

    url: str
    server: ServerInfo
    live: bool
    ready: bool
    models: tuple[ModelStatus, ...]
    generator: str | None
    cut: int | None

    @property
    def usable(self) -> bool:
        """Whether every model that the default method needs is ready, on a ready server."""
        return self.live and self.ready and all(model.ready for model in self.models if model.needed)
