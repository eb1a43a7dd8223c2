"""The weights of one network as safetensors: float16 in the file, float32 in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class WeightsError(ValueError):
    """A weights file is missing, damaged, or holds another network."""


def halved(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network as it is stored: float16, without the batch counters."""
    return {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def write(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a file that everyone can read; atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(state, partial, metadata=metadata)
    partial.chmod(0o644)  # safetensors writes for its owner alone
    partial.replace(path)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    if not path.exists():
        raise WeightsError(f"no trained network at `{path}`")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as exc:
        raise WeightsError(f"cannot read `{path}`: not a safetensors file") from exc


def check(path: Path, metadata: dict[str, str], network: str, generator: str | None) -> None:
    """Check the kind of network and, if given, the fingerprint of the generator that it must belong to.

    Raises:
        WeightsError: the file holds another network, or belongs to another generator.
    """
    if metadata.get("network") != network:
        raise WeightsError(f"cannot use `{path}`: expected a network of kind {network}, got {metadata.get('network')}")
    if generator is not None and metadata.get("generator") != generator:
        raise WeightsError(f"cannot use `{path}`: trained for generator {metadata.get('generator')}, not {generator}")


def fill(network: Network, state: dict[str, Tensor], path: Path) -> Network:
    """Put the state of a file into a network, which is then in evaluation mode and frozen.

    Raises:
        WeightsError: the tensors are not those of the network.
    """
    state = {name: value.float() if value.dtype == torch.float16 else value for name, value in state.items()}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as exc:
        raise WeightsError(f"cannot read `{path}`: its tensors have other shapes than its metadata says") from exc
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise WeightsError(f"cannot read `{path}`: its tensors are not those of the network in its metadata")
    return network.eval().requires_grad_(requires_grad=False)


def read(path: Path, network: Network) -> Network:
    """Fill a network from a file; see `fill`."""
    return fill(network, load_file(path), path)
