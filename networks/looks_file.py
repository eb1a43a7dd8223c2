"""The coarse look and the short head as safetensors: float16 in the file, float32 in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from networks.learned_file import WeightsError
from networks.looks import CoarseStyles
from networks.short_head import ShortHead

Network = TypeVar("Network", bound=nn.Module)
COARSE_LOOK, SHORT_HEAD = "coarse_look", "short_head"


def save_coarse_styles(network: CoarseStyles, path: Path, *, generator: str, training: str = "") -> None:
    """Write a coarse look, atomic.

    Args:
        network: with the statistics of W.
        path: the file to write.
        generator: fingerprint of the generator whose styles it gives.
        training: how it was trained, as text.
    """
    _save(network, path, {"network": COARSE_LOOK, "coarse": str(network.look.coarse), "generator": generator}, training)


def save_short_head(network: ShortHead, path: Path, *, generator: str, training: str = "") -> None:
    """Write a short head, as :func:`save_coarse_styles` writes a coarse look."""
    _save(network, path, {"network": SHORT_HEAD, "generator": generator}, training)


def load_coarse_styles(path: Path, *, generator: str | None = None) -> CoarseStyles:
    """Read a coarse look: float32, in evaluation mode, frozen.

    Args:
        path: a file of ``save_coarse_styles``.
        generator: if given, fingerprint of the generator that it must belong to.

    Raises:
        WeightsError: the file is missing, damaged, holds another network, or belongs to another generator.
    """
    metadata, state = _read(path, COARSE_LOOK, generator)
    return _filled(CoarseStyles(coarse=int(metadata.get("coarse", "4"))), state, path)


def load_short_head(path: Path, *, generator: str | None = None) -> ShortHead:
    """Read a short head, as :func:`load_coarse_styles` reads a coarse look."""
    return _filled(ShortHead(), _read(path, SHORT_HEAD, generator)[1], path)


def _save(network: nn.Module, path: Path, metadata: dict[str, str], training: str) -> None:
    state = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(state, partial, metadata={**metadata, "training": training})
    partial.chmod(0o644)  # safetensors writes for its owner alone
    partial.replace(path)


def _read(path: Path, network: str, generator: str | None) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        state = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise WeightsError(f"cannot read `{path}`: not a safetensors file") from exc
    if metadata.get("network") != network:
        raise WeightsError(f"cannot use `{path}`: expected a network of kind {network}, got {metadata.get('network')}")
    if generator is not None and metadata.get("generator") != generator:
        raise WeightsError(f"cannot use `{path}`: trained for generator {metadata.get('generator')}, not {generator}")
    return metadata, {name: v.float() if v.dtype == torch.float16 else v for name, v in state.items()}


def _filled(network: Network, state: dict[str, Tensor], path: Path) -> Network:
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as exc:
        raise WeightsError(f"cannot read `{path}`: its tensors have other shapes") from exc
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise WeightsError(f"cannot read `{path}`: its tensors are not those of the network in its metadata")
    return network.eval().requires_grad_(requires_grad=False)
