"""The looks, the short head and the picture head as safetensors: float16 in the file, float32 in memory."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from networks.looks import CoarseStyles, CodeLooks
from networks.picture_head import PictureHead
from networks.short_head import ShortHead
from networks.weights_file import check, halved, read, read_metadata, write

LOOKS, COARSE_LOOK, SHORT_HEAD, PICTURE_HEAD = "looks", "coarse_look", "short_head", "picture_head"


def save_looks(network: CodeLooks, path: Path, *, generator: str, training: str = "") -> None:
    """Write the first and the second look with their statistics, atomic.

    Args:
        network: one with a coarse look as well is written without it.
        path: the file to write.
        generator: fingerprint of the generator whose codes they give.
        training: how they were trained, as text.
    """
    state = {name: value for name, value in halved(network).items() if not name.startswith("coarse_look.")}
    metadata = {"network": LOOKS, "styles": str(network.styles), "channels": str(network.channels)}
    write(path, state, {**metadata, "generator": generator, "training": training})


def save_coarse_styles(network: CoarseStyles, path: Path, *, generator: str, training: str = "") -> None:
    """Write a coarse look with the statistics of W, as :func:`save_looks` writes the looks."""
    _save(network, path, {"network": COARSE_LOOK, "coarse": str(network.look.coarse), "generator": generator}, training)


def save_short_head(network: ShortHead, path: Path, *, generator: str, training: str = "") -> None:
    """Write a short head, as :func:`save_looks` writes the looks."""
    _save(network, path, {"network": SHORT_HEAD, "generator": generator}, training)


def save_picture_head(network: PictureHead, path: Path, *, generator: str, training: str = "") -> None:
    """Write a picture head, as :func:`save_looks` writes the looks."""
    _save(network, path, {"network": PICTURE_HEAD, "generator": generator}, training)


def load_looks(path: Path, *, generator: str | None = None) -> CodeLooks:
    """Read the first and the second look: float32, in evaluation mode, frozen.

    Args:
        path: a file of ``save_looks``.
        generator: if given, fingerprint of the generator that it must belong to.

    Raises:
        WeightsError: the file is missing, damaged, holds another network, or belongs to another generator.
    """
    metadata = _metadata(path, LOOKS, generator)
    styles, channels = (int(metadata.get(name, value)) for name, value in (("styles", "12"), ("channels", "512")))
    return read(path, CodeLooks(styles=styles, channels=channels))


def load_coarse_styles(path: Path, *, generator: str | None = None) -> CoarseStyles:
    """Read a coarse look, as :func:`load_looks` reads the looks."""
    metadata = _metadata(path, COARSE_LOOK, generator)
    return read(path, CoarseStyles(coarse=int(metadata.get("coarse", "4"))))


def load_short_head(path: Path, *, generator: str | None = None) -> ShortHead:
    """Read a short head, as :func:`load_looks` reads the looks."""
    _metadata(path, SHORT_HEAD, generator)
    return read(path, ShortHead())


def load_picture_head(path: Path, *, generator: str | None = None) -> PictureHead:
    """Read a picture head, as :func:`load_looks` reads the looks."""
    _metadata(path, PICTURE_HEAD, generator)
    return read(path, PictureHead())


def _save(network: nn.Module, path: Path, metadata: dict[str, str], training: str) -> None:
    write(path, halved(network), {**metadata, "training": training})


def _metadata(path: Path, network: str, generator: str | None) -> dict[str, str]:
    metadata = read_metadata(path)
    check(path, metadata, network, generator)
    return metadata
