"""Checks of requests before they are sent, and of answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from client.errors import AnswerRefused, ParameterError
from client.files.inversion import Inversion
from client.text import quoted, shown
from client.triton.transport import Array, ModelConfig, TensorSpec
from protocol.cuts import CUTS, DEFAULT_CUT, W_PLUS
from protocol.methods import METHODS

MAX_STRENGTH: Final = 100.0
MAX_SEED: Final = 2**63 - 1


def checked_domain(domain: str) -> str:
    """Return the domain; raise ``ParameterError`` where it is not a name."""
    if not (domain.isascii() and domain.isidentifier()):
        raise ParameterError(f"invalid domain {quoted(domain)}: expected a name, for example ffhq")
    return domain


def checked_method(method: str, cut: int | None) -> tuple[Literal["encoder", "mean"], int]:
    """Return the start of a method, and the cut of its codes.

    Raises:
        ParameterError: there is no such method, or it has no such cut.
    """
    if method not in METHODS:
        raise ParameterError(f"unknown method {quoted(method, limit=40)}: expected {', '.join(METHODS)}")
    found = METHODS[method]
    if found.space == "W+":
        if cut is not None:
            raise ParameterError(f"invalid cut {cut}: the method {method} works in W+, which has no cut")
        return found.start, W_PLUS
    if cut not in (None, *CUTS):
        raise ParameterError(f"invalid cut {cut}: expected {' or '.join(map(str, CUTS))}")
    return found.start, cut or DEFAULT_CUT


def checked_strengths(strengths: Sequence[float]) -> NDArray[np.float32]:
    """Return the strengths as float32 [n]; raise ``ParameterError`` where one is not finite or out of range."""
    values = np.asarray(strengths, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ParameterError("an edit needs at least one strength")
    if not (np.isfinite(values).all() and (np.abs(values) <= MAX_STRENGTH).all()):
        raise ParameterError(f"invalid strength: expected a number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}")
    return values.astype(np.float32)


def checked_sample(seed: int, psi: float) -> None:
    """Raise ``ParameterError`` where the seed or psi of a sample is out of range."""
    if not 0 <= seed <= MAX_SEED:
        raise ParameterError(f"invalid seed {seed}: expected a whole number from 0 to {MAX_SEED}")
    if not (math.isfinite(psi) and -2 <= psi <= 2):
        raise ParameterError(f"invalid truncation psi {psi:g}: expected a number from -2 to 2")


def started(inversion: Inversion, config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """Return the tensors that an edit starts from, for a model that moves ``w_m_plus`` alone or ``f`` as well."""
    found = {"f": inversion.f, "w_m_plus": inversion.w_m_plus}
    if "w_coarse" not in config.inputs:
        return found
    if inversion.face is not None:
        return found | inversion.face.named()
    zeros = np.zeros(config.inputs["w_coarse"].dims, np.float32)
    return {**found, "w_coarse": zeros, "transform": np.eye(2, 3, dtype=np.float32)}


def fault(value: Array, spec: TensorSpec) -> str | None:
    """Return what is wrong with a tensor, or None."""
    if value.dtype != spec.dtype:
        return f"as {value.dtype}, not {spec.dtype}"
    fits = len(value.shape) == len(spec.dims) and all(d in (-1, n) for n, d in zip(value.shape, spec.dims, strict=True))
    if not fits:
        return f"of shape {list(value.shape)}, not {list(spec.dims)}"
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        return "with numbers that are not finite"
    return None


def spec_of(config: ModelConfig, name: str, *, output: bool = False) -> TensorSpec:
    """Return a tensor's declaration; raise ``AnswerRefused`` where the model has no such tensor."""
    found = (config.outputs if output else config.inputs).get(name)
    if found is None:
        raise AnswerRefused(f"the served model {config.name} has no {'output' if output else 'input'} {quoted(name)}")
    return found


def side_of(config: ModelConfig, name: str, *, output: bool = False) -> int:
    """Return the side of a square image in pixels."""
    dims = spec_of(config, name, output=output).dims
    if len(dims) != 3 or dims[0] != dims[1] or not 0 < dims[0] <= 4096:
        raise AnswerRefused(f"the served model {config.name} does not {'return' if output else 'take'} a square image")
    return dims[0]


def generator_of(config: ModelConfig) -> str:
    """Return the fingerprint of a model's generator."""
    generator = config.parameters.get("generator", "")
    if not generator:
        raise AnswerRefused(f"the served model {config.name} does not say which generator it belongs to")
    return shown(generator)


def number_of(config: ModelConfig, name: str) -> int:
    """Return a whole number from a model's parameters, for example ``cut``."""
    text = config.parameters.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        raise AnswerRefused(f"the served model {config.name} does not say its {name}")
    return int(text)
