"""Directions of W: a name such as ``age``, or your own file, and what to send to edit along it.

A direction file is safetensors with the tensor ``direction``, float32 [512], of unit length in W, and string
metadata: ``name``, ``generator`` (fingerprint), ``description``, ``unit`` (what strength 1 means), ``scale``
(length of strength 1 in W, default 1), ``layers`` (the styles it moves, first-last, default all),
``suggested_range`` (low,high), ``turns`` (by which yaw strength 1 turns heads, default 0), ``features`` (share of a
change that eyes, brows and nose of a photo get, default 1), ``gain`` (by which a step is longer where its change is
laid over a photo, default 1) and ``source``.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.errors import DirectionError
from client.files import tensors
from client.text import quoted, shown

STYLE_DIM: Final = 512
FOLDER: Final = Path(__file__).parents[1] / "directions"
_SUFFIX: Final = ".safetensors"
_MAX_BYTES = 2**20
_MOST_TURNED: Final = 10.0
_MOST_GAIN: Final = 10.0
_NUMBERS: Final = "scale, layers, suggested_range, turns, features or gain"


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of W.

    Attributes:
        name: for people.
        vector: float32 [512], of length 1.
        generator: fingerprint of the generator whose W it belongs to.
        scale: length in W of a step of strength 1.
        layers: first and last style that it moves, counted over all of W+; None is all.
        description: what changes along it.
        unit: what strength 1 means.
        suggested_range: strengths that give believable faces, low and high.
        source: where it comes from.
        turns: the yaw by which strength 1 turns heads, in eye distances of the nose's tip; 0 where it does not. A
            photo's own pixels then turn, ``gain`` times as far, and nothing is painted.
        features: share of a change, 0 to 1, that eyes, brows and nose of a photo get: by them a person is known.
        gain: by which a step is longer where its change is laid over a photo, which keeps a part of it.

    Raises:
        DirectionError: on creation, when the vector is not a finite float32 [512] of length 1, or scale, layers,
            suggested_range, turns, features or gain are out of range.
    """

    name: str
    vector: NDArray[np.float32]
    generator: str
    scale: float = 1.0
    layers: tuple[int, int] | None = None
    description: str = ""
    unit: str = ""
    suggested_range: tuple[float, float] | None = None
    source: str = ""
    turns: float = 0.0
    features: float = 1.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        vector = self.vector
        if vector.dtype != np.float32 or vector.shape != (STYLE_DIM,) or not np.isfinite(vector).all():
            raise DirectionError(f"the direction {self.name} is not a finite float32 [{STYLE_DIM}]")
        if not math.isclose(float(np.linalg.norm(vector.astype(np.float64))), 1.0, abs_tol=1e-3):
            raise DirectionError(f"the direction {self.name} does not have length 1")
        if not (math.isfinite(self.scale) and 0 < self.scale <= 1000):
            raise DirectionError(
                f"invalid scale {self.scale:g} of the direction {self.name}: expected above 0 and up to 1000"
            )
        if not abs(self.turns) <= _MOST_TURNED:
            raise DirectionError(
                f"invalid turns {self.turns:g} of the direction {self.name}: expected up to {_MOST_TURNED:g} either way"
            )
        if not 0 <= self.features <= 1:
            raise DirectionError(
                f"invalid features {self.features:g} of the direction {self.name}: expected from 0 to 1"
            )
        if not 0 < self.gain <= _MOST_GAIN:
            raise DirectionError(
                f"invalid gain {self.gain:g} of the direction {self.name}: expected above 0 and up to {_MOST_GAIN:g}"
            )
        if self.suggested_range is not None:
            low, high = self.suggested_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise DirectionError(f"invalid suggested range of the direction {self.name}: expected low,high")
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise DirectionError(f"invalid layers of the direction {self.name}: expected first-last")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Direction:
        """Read and validate a direction file.

        Raises:
            DirectionError: it is missing, damaged, not safetensors, or not a direction.
        """
        found, metadata = tensors.load(path, limit=_MAX_BYTES, error=DirectionError)
        what = quoted(path)
        vector = tensors.require(found, "direction", what=what, error=DirectionError)
        if not metadata.get("generator"):
            raise DirectionError(f"{what} does not say which generator it belongs to")
        texts = {key: shown(metadata.get(key, "")) for key in ("description", "unit", "source", "generator")}
        try:
            layers = tuple(int(part) for part in metadata["layers"].split("-")) if "layers" in metadata else None
            limits = metadata.get("suggested_range")
            low_high = tuple(float(part) for part in limits.split(",")) if limits else None
            defaults = {"scale": "1", "turns": "0", "features": "1", "gain": "1"}
            scale, turns, features, gain = (float(metadata.get(key, default)) for key, default in defaults.items())
        except ValueError as problem:
            raise DirectionError(f"{what} has an unreadable {_NUMBERS}") from problem
        if (layers is not None and len(layers) != 2) or (low_high is not None and len(low_high) != 2):
            raise DirectionError(f"{what} has an unreadable scale, layers or suggested_range")
        return cls(
            name=shown(metadata.get("name") or Path(path).stem, limit=40),
            vector=vector,
            scale=scale,
            layers=None if layers is None else (layers[0], layers[1]),
            suggested_range=None if low_high is None else (low_high[0], low_high[1]),
            turns=turns,
            features=features,
            gain=gain,
            **texts,
        )

    def step(self, *, before: int, styles: int) -> NDArray[np.float32]:
        """Return the step of strength 1 in M+: float32 [styles, 512], zero for the styles outside ``layers``.

        Args:
            before: number of styles before M, which ``f`` has used up.
            styles: number of styles from M on.
        """
        first, last = self.layers or (0, before + styles - 1)
        moved = np.zeros((styles, STYLE_DIM), dtype=np.float32)
        moved[max(first - before, 0) : max(last - before + 1, 0)] = self.vector * np.float32(self.scale)
        if not moved.any():
            raise DirectionError(
                f"the direction {self.name} moves only styles before the cut, so it cannot edit this inversion"
            )
        return moved

    def turned(self, strengths: Sequence[float]) -> list[float]:
        """Return the yaw that edits of these strengths add in a photo, as ``Paste`` takes it."""
        return [strength * self.turns * self.gain for strength in strengths]

    @property
    def in_photo(self) -> Direction:
        """The direction whose steps are to be rendered where their change is laid over a photo."""
        return replace(self, scale=self.scale * self.gain, gain=1.0)

    def digest(self) -> str:
        """Return 16 hex digits that change with what an edit along it does."""
        content = self.vector.tobytes() + repr((self.scale, self.layers, self.generator)).encode()
        content += f"turns {self.turns}".encode() if self.turns else b""
        if (self.features, self.gain) != (1, 1):
            content += f"features {self.features} gain {self.gain}".encode()
        return hashlib.sha256(content).hexdigest()[:16]

    def require_generator(self, generator: str) -> None:
        """Raise ``DirectionError`` where the direction belongs to another generator."""
        if self.generator != generator:
            raise DirectionError(
                f"the direction {self.name} belongs to generator {self.generator}, "
                f"but the server runs generator {shown(generator)}"
            )


def names(domain: str) -> list[str]:
    """Return the names of the directions that come with the package for a domain, sorted."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in (FOLDER / domain).glob(f"*{_SUFFIX}"))


def load(domain: str, name: str) -> Direction:
    """Return a direction by its name, or from your own file (anything that ends in ``.safetensors``).

    Raises:
        DirectionError: there is none of that name, or the file is not a direction.
    """
    if name.endswith(_SUFFIX):
        return Direction.load(name)
    known = names(domain)
    if name not in known:
        choice = f"expected one of {', '.join(known)}" if known else "none are installed"
        raise DirectionError(f"unknown direction {quoted(name)} for {quoted(domain)}: {choice}, or a .safetensors file")
    return Direction.load(FOLDER / domain / f"{name}{_SUFFIX}")
