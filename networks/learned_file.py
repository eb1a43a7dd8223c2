"""Encoders and detail heads as safetensors: float16 in the file, float32 in memory.

Every detail head reads the features of the same frozen network, ST-LPIPS' Alex, which is stored once, in `BACKBONE`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from networks.detail import Detail
from networks.encoder import Encoder
from networks.weights_file import WeightsError, check, fill, halved, read, read_metadata, write

BACKBONE = Path(__file__).parent / "weights" / "alex.safetensors"
_PREFIX = "backbone."
ENCODER, DETAIL = "encoder", "detail"
EARLIER = {8: 14, 16: 12}  # number of styles by cut, in files that do not say it


def save_learned(network: Encoder | Detail, path: Path, *, generator: str, training: str = "") -> None:
    """Write a network in float16, with all that is needed to build it again; atomic.

    Args:
        network: an encoder or a detail head. The head's backbone is left out if it is the shared one.
        path: the file to write.
        generator: fingerprint of the generator that the network inverts.
        training: how it was trained, as text.
    """
    state = halved(network)
    if isinstance(network, Detail):
        shared = load_file(BACKBONE)
        own = {name: state[f"{_PREFIX}{name}"] for name in shared}
        if all(torch.equal(own[name], value) for name, value in shared.items()):
            state = {name: value for name, value in state.items() if not name.startswith(_PREFIX)}
    metadata = {"cut": str(network.cut), "generator": generator, "training": training}
    if isinstance(network, Encoder):
        metadata |= {"network": ENCODER, "body": network.body_name, "channels": str(network.channels)}
    else:
        metadata |= {"network": DETAIL, "body": "linear", "styles": str(network.count)}
    write(path, state, metadata)


def learned_metadata(path: Path) -> dict[str, str]:
    """The metadata that ``save_learned`` wrote: network, body, cut, generator, training.

    Raises:
        WeightsError: the file is missing, damaged, or not one of ``save_learned``.
    """
    metadata = read_metadata(path)
    if not {"body", "cut", "generator", "training"} <= set(metadata):
        raise WeightsError(f"cannot read `{path}`: not a trained network of this project")
    return {"network": ENCODER, **metadata}


def load_encoder(path: Path, *, generator: str | None = None) -> Encoder:
    """Read an encoder: float32, in evaluation mode, frozen.

    Args:
        path: a file of ``save_learned``.
        generator: if given, fingerprint of the generator that the encoder must belong to.

    Raises:
        WeightsError: the file is missing, damaged, holds another network, or belongs to another generator.
    """
    metadata = _checked(path, ENCODER, generator)
    channels = int(metadata.get("channels", "512"))
    return read(path, Encoder(body=metadata["body"], cut=int(metadata["cut"]), channels=channels))


def load_detail(path: Path, *, generator: str | None = None) -> Detail:
    """Read a detail head, as :func:`load_encoder` reads an encoder."""
    metadata = _checked(path, DETAIL, generator)
    cut = int(metadata["cut"])
    detail = Detail(cut=cut, count=int(metadata["styles"]) if "styles" in metadata else EARLIER[cut])
    state = load_file(path)
    if not any(name.startswith(_PREFIX) for name in state):
        state |= {f"{_PREFIX}{name}": value for name, value in load_file(BACKBONE).items()}
    return fill(detail, state, path)


def _checked(path: Path, network: str, generator: str | None) -> dict[str, str]:
    metadata = learned_metadata(path)
    check(path, metadata, network, generator)
    return metadata
