"""A generator's weights as one safetensors file, which ``python -m export fetch`` and ``import`` write."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from networks.mapping import MappingNetwork
from networks.mobilestylegan import MobileStyleGAN
from networks.stylegan import StyleGAN
from networks.stylegan2 import Shape, StyleGAN2
from networks.synthesis import Synthesis

MOBILE, STYLEGAN, STYLEGAN2 = "mobilestylegan", "stylegan", "stylegan2"


class GeneratorError(ValueError):
    """The generator's file is missing, damaged or of another version."""


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator in evaluation mode, its weights frozen."""

    mapping: MappingNetwork
    synthesis: Synthesis
    fingerprint: str


def state_of(mapping: MappingNetwork, synthesis: Synthesis) -> dict[str, Tensor]:
    """All tensors of a generator, float32, by the names in its file."""
    state = {f"mapping.{k}": v for k, v in mapping.state_dict().items()}
    state |= {f"synthesis.{k}": v for k, v in synthesis.state_dict().items()}
    return {name: value.detach().float().cpu().contiguous() for name, value in state.items()}


def save_generator(
    mapping: MappingNetwork, synthesis: Synthesis, path: Path, *, domain: str, metadata: dict[str, str] | None = None
) -> str:
    """Write a generator in float32, with all that is needed to build it again; atomic.

    Args:
        mapping: the mapping network, with ``w_avg``.
        synthesis: a synthesis network of any family.
        path: the file to write.
        domain: what the generator shows, for example ``ffhq``.
        metadata: further entries for the file's metadata.

    Returns:
        The generator's fingerprint.
    """
    state = state_of(mapping, synthesis)
    mark = fingerprint(state)
    own = {"fingerprint": mark, "domain": domain, "network": json.dumps(description(synthesis))}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    save_file(state, partial, metadata={**(metadata or {}), **own})
    partial.replace(path)
    return mark


def read_shape(path: Path) -> Synthesis:
    """The synthesis network of a file without its weights: enough for its sizes, and quick.

    Raises:
        GeneratorError: the file is missing, damaged or of another version.
    """
    metadata = generator_metadata(path)
    try:
        with torch.device("meta"):
            return built(json.loads(metadata["network"]))
    except (TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def read_generator(path: Path) -> Generator:
    """Load a generator on the CPU.

    Raises:
        GeneratorError: the file is missing, damaged or of another version.
    """
    metadata = generator_metadata(path)
    try:
        state = load_file(path)
        depth = len({name.split(".")[2] for name in state if name.startswith("mapping.layers.")})
        mapping, synthesis = MappingNetwork(depth=depth), built(json.loads(metadata["network"]))
        mapping.load_state_dict({k.removeprefix("mapping."): v for k, v in state.items() if k.startswith("mapping.")})
        synthesis.load_state_dict(
            {k.removeprefix("synthesis."): v for k, v in state.items() if k.startswith("synthesis.")}
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return Generator(
        mapping=mapping.eval().requires_grad_(False),
        synthesis=synthesis.eval().requires_grad_(False),
        fingerprint=metadata["fingerprint"],
    )


def generator_metadata(path: Path) -> dict[str, str]:
    """The metadata of a generator's file: fingerprint, domain, network, and what else ``save_generator`` was given.

    Raises:
        GeneratorError: the file is missing, damaged or of another version.
    """
    if not path.exists():
        raise GeneratorError(f"no generator at `{path}`: run `{_command(path)}`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise _damaged(path, error) from error
    if not {"fingerprint", "network"} <= set(metadata):
        raise GeneratorError(f"`{path}` was written by another version: run `{_command(path)}`")
    return metadata


def _damaged(path: Path, error: Exception) -> GeneratorError:
    return GeneratorError(f"cannot read `{path}`: {error}: run `{_command(path)}`")


def _command(path: Path) -> str:
    """The command that writes a generator's file."""
    domain = path.parent.name
    return "python -m export fetch" if domain == "ffhq" else f"python -m export import FILE --domain {domain}"


def fingerprint(state: dict[str, Tensor]) -> str:
    """First 16 hex digits of a sha256 over the names, shapes and values of the published weights, sorted by name.

    ``w_avg`` is left out: where it is estimated, its last bits differ between machines.
    """
    digest = hashlib.sha256()
    for name in sorted(set(state) - {"mapping.w_avg"}):
        digest.update(f"{name}{tuple(state[name].shape)}".encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def description(synthesis: Synthesis) -> dict[str, object]:
    """What :func:`built` needs to build such a network, as plain values."""
    if isinstance(synthesis, StyleGAN2):
        return {"family": STYLEGAN2, **asdict(synthesis.shape)}
    if isinstance(synthesis, StyleGAN):
        return {"family": STYLEGAN, "channels": list(synthesis.channels)}
    return {"family": MOBILE}


def built(network: dict[str, object]) -> Synthesis:
    """The network of a description, with random weights.

    Raises:
        TypeError, ValueError: the description is wrong.
    """
    options = dict(network)
    family = options.pop("family", None)
    channels = options.pop("channels", ())
    if not isinstance(channels, list | tuple) or not all(isinstance(c, int) and 0 < c <= 4096 for c in channels):
        raise ValueError(f"invalid channels {channels!r}: expected whole numbers up to 4096")
    if family == MOBILE:
        return MobileStyleGAN()
    if family == STYLEGAN:
        return StyleGAN(tuple(channels))
    if family == STYLEGAN2:
        return StyleGAN2(Shape(channels=tuple(channels), **options))  # type: ignore[arg-type]
    raise ValueError(f"unknown family `{family}`: expected {MOBILE}, {STYLEGAN} or {STYLEGAN2}")
