"""The coarse look and the short head as safetensors: float16 in the file, float32 in memory."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from networks.looks import CoarseStyles
from networks.short_head import ShortHead
from networks.weights_file import check, halved, read, read_metadata, write

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
    metadata = _metadata(path, COARSE_LOOK, generator)
    return read(path, CoarseStyles(coarse=int(metadata.get("coarse", "4"))))


def load_short_head(path: Path, *, generator: str | None = None) -> ShortHead:
    """Read a short head, as :func:`load_coarse_styles` reads a coarse look."""
    _metadata(path, SHORT_HEAD, generator)
    return read(path, ShortHead())


def _save(network: nn.Module, path: Path, metadata: dict[str, str], training: str) -> None:
    write(path, halved(network), {**metadata, "training": training})


def _metadata(path: Path, network: str, generator: str | None) -> dict[str, str]:
    metadata = read_metadata(path)
    check(path, metadata, network, generator)
    return metadata
