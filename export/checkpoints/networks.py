"""Finds the generator in a checkpoint, whoever published it. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from export.checkpoints.errors import DamagedError, TooLargeError, UnknownFormatError, UnsupportedNetworkError
from export.checkpoints.records import Array, Budget, Module, Name, Namespace, View, of, sizes

MAX_DEPTH = 32
Kind = Literal["nvlabs", "rosinality", "genforce", "own"]


@dataclass(frozen=True, kw_only=True)
class FoundGenerator:
    """A generator under its publisher's names.

    Attributes:
        kind: the publisher.
        tensors: by name: torch's type, and the values as the bits of that type.
        attributes: JSON values.
    """

    kind: Kind
    tensors: dict[str, tuple[str, NDArray[np.generic]]]
    attributes: dict[str, object]


def of_nvlabs(value: object, budget: Budget) -> FoundGenerator:
    """``G_ema`` of NVlabs' dictionary, or a network on its own.

    Raises:
        UnknownFormatError, UnsupportedNetworkError: there is none.
    """
    network = value
    if isinstance(value, dict):
        network = value.get("G_ema")
        if network is None and "D" in value and "G" not in value:
            raise UnsupportedNetworkError("holds a discriminator, but no generator")
    if not isinstance(network, Module):
        raise UnknownFormatError("is a pickle without NVlabs' G_ema")
    found: dict[str, View] = {}
    attributes: dict[str, object] = {}
    for at, module in _modules(network, "", 0, budget):
        found |= _views_of(module, at, budget)
        attributes |= _attributes_of(module, at, budget)
    if publisher(found) != "nvlabs":
        raise UnknownFormatError("holds a pickled network whose names are not NVlabs'")
    return FoundGenerator(kind="nvlabs", tensors=_tensors(found, budget), attributes=attributes)


def of_torch(value: object, budget: Budget) -> FoundGenerator:
    """The averaged generator in a dictionary of rosinality or genforce, or the dictionary of tensors alone.

    Raises:
        UnknownFormatError, UnsupportedNetworkError: there is none.
    """
    if not isinstance(value, dict):
        raise UnknownFormatError("does not hold a dictionary of tensors")
    nested = value.get("models")
    networks = nested if isinstance(nested, dict) else value
    # genforce's own tools fall back on the plain weights; rosinality's never do.
    names = ("g_ema", "generator_smooth", "generator")
    taken = next((name for name in names if isinstance(networks.get(name), dict)), None)
    state = value if taken is None else networks[taken]
    if taken is None and not any(isinstance(v, View) for v in value.values()):
        if "d" in value or "discriminator" in networks:
            raise UnsupportedNetworkError("holds a discriminator, but no averaged weights of a generator (g_ema)")
        raise UnknownFormatError("does not hold g_ema, generator_smooth or generator")
    found = {of(str, k): v for k, v in state.items() if isinstance(v, View)}
    if found and all(name.startswith("module.") for name in found):  # written by a model in parallel
        found = {name.removeprefix("module."): v for name, v in found.items()}
    kind = publisher(found)
    if kind == "rosinality" and isinstance(value.get("latent_avg"), View):
        found["latent_avg"] = value["latent_avg"]
    attributes = {} if taken is None else _beside(value, {*names, "models", "g", "d", "discriminator"}, budget)
    return FoundGenerator(kind=kind, tensors=_tensors(found, budget), attributes=attributes)


def publisher(names: Iterable[str]) -> Kind:
    """The publisher whose generators of StyleGAN or StyleGAN2 have these names.

    Raises:
        UnknownFormatError: there is none; `UnsupportedNetworkError` for another known network.
    """
    held = set(names)
    if "synthesis.input.freqs" in held or any(re.match(r"synthesis\.L\d+_", name) for name in held):
        _unsupported("a StyleGAN3 generator")
    if "lod" in held or {"layer0.weight", "output0.weight"} <= held:
        _unsupported("a PGGAN generator")
    if held & {"final_linear.0.weight", "b4.out.weight", "input0.weight"}:
        _unsupported("a discriminator")
    if "synthesis.b4.const" in held:
        return "nvlabs"
    if {"style.1.weight", "input.input"} <= held:
        return "rosinality"
    if "mapping.dense0.weight" in held and held & {"synthesis.layer0.weight", "synthesis.layer0.const"}:
        return "genforce"
    raise UnknownFormatError("holds tensors, but of no known generator")


def _unsupported(network: str) -> NoReturn:
    raise UnsupportedNetworkError(f"holds {network}: only generators of StyleGAN and StyleGAN2 are served")


def _modules(module: Module, at: str, depth: int, budget: Budget) -> Iterator[tuple[str, Module]]:
    """A module and all inside it, each with the prefix of its dotted names."""
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nests modules deeper than {MAX_DEPTH}")
    budget.spend("values", 1 + len(module.state))
    yield at, module
    for name, inner in _members(module, "_modules", budget):
        yield from _modules(of(Module, inner), f"{at}{name}.", depth + 1, budget)


def _members(module: Module, group: str, budget: Budget) -> Iterator[tuple[str, object]]:
    for name, value in of(dict, module.state.get(group, {})).items():
        budget.spend("values")
        if "." in of(str, name):  # it could imitate another module's
            raise DamagedError("holds a module with a dot in its name")
        if value is not None:
            yield name, value


def _views_of(module: Module, at: str, budget: Budget) -> dict[str, View]:
    members = [*_members(module, "_parameters", budget), *_members(module, "_buffers", budget)]
    return {f"{at}{name}": of(View, value) for name, value in members}


def _attributes_of(module: Module, at: str, budget: Budget) -> dict[str, object]:
    found: dict[str, object] = {f"{at}class_name": module.class_name}
    for name, value in module.state.items():
        if name in {"_init_args", "_init_kwargs"} or not of(str, name).startswith("_"):
            found[f"{at}{name}"] = _plain(value, 0, budget)
    return {name: value for name, value in found.items() if value is not _LEFT_OUT}


def _beside(value: dict[object, object], networks: set[str], budget: Budget) -> dict[str, object]:
    """The plain values beside the networks; optimizers are left out."""
    names = [name for name in value if name not in networks and "optim" not in str(name)]
    found = {str(name): _plain(value[name], 0, budget) for name in names}
    return {name: item for name, item in found.items() if item is not _LEFT_OUT}


def _tensors(found: dict[str, View], budget: Budget) -> dict[str, tuple[str, NDArray[np.generic]]]:
    budget.spend("values", len(found))
    return {name: view.array(budget) for name, view in found.items()}


_LEFT_OUT = object()


def _plain(value: object, depth: int, budget: Budget) -> object:
    """The value for JSON, or `_LEFT_OUT`. Each visit is counted, because a pickle can share what it nests."""
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nests values deeper than {MAX_DEPTH}")
    budget.spend("values")
    if isinstance(value, Namespace):
        value = value.state
    if isinstance(value, Name):
        return value.text
    if isinstance(value, Array):
        budget.spend("elements", math.prod(sizes(value.shape)))
        return value.array().tolist()
    if isinstance(value, dict):
        pairs = ((_key(k), _plain(v, depth + 1, budget)) for k, v in value.items())
        return {k: v for k, v in pairs if v is not _LEFT_OUT}
    if isinstance(value, list | tuple):
        return [v for v in (_plain(v, depth + 1, budget) for v in value) if v is not _LEFT_OUT]
    return value if value is None or isinstance(value, bool | int | float | str) else _LEFT_OUT


def _key(value: object) -> str:
    if type(value) is str or (type(value) is int and abs(value) < 1 << 63):
        return str(value)
    raise DamagedError(f"holds a dictionary key of type {type(value).__name__}")
