"""Learned weights as safetensors: stored in half precision, loaded in single."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from networks.encoder import Encoder


class WeightsError(ValueError):
    """A weights file is missing or does not hold what it should."""


def save_encoder(encoder: Encoder, path: Path, *, generator: str, training: str = "") -> None:
    """Write an encoder, fp16, with what is needed to build it again; whole or not at all.

    Args:
        encoder: any ``Encoder``.
        path: the file to write.
        generator: fingerprint of the generator that the encoder inverts.
        training: how it was trained, for people.
    """
    state = {
        name: value.detach().cpu().half() if value.is_floating_point() else value.cpu()
        for name, value in encoder.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    metadata = {"body": encoder.body_name, "cut": str(encoder.cut), "generator": generator, "training": training}
    save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata=metadata)
    partial.replace(path)


def encoder_metadata(path: Path) -> dict[str, str]:
    """What ``save_encoder`` wrote beside the weights: body, cut, generator, training.

    Raises:
        WeightsError: the file is missing, damaged, or something else.
    """
    if not path.exists():
        raise WeightsError(f"there is no trained encoder at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError:
        raise WeightsError(f"{path.name} is damaged or no safetensors file") from None
    if not {"body", "cut", "generator", "training"} <= set(metadata):
        raise WeightsError(f"{path.name} is not an encoder of this project")
    return metadata


def load_encoder(path: Path, *, generator: str | None = None) -> Encoder:
    """Read an encoder: float32, evaluation mode, no gradients.

    Args:
        path: a file of ``save_encoder``.
        generator: if given, the fingerprint that the encoder must belong to.

    Raises:
        WeightsError: the file is missing, or the encoder belongs to another generator.
    """
    metadata = encoder_metadata(path)
    if generator is not None and metadata.get("generator") != generator:
        raise WeightsError(f"{path.name} was trained for generator {metadata.get('generator')}, not for {generator}")
    encoder = Encoder(body=metadata["body"], cut=int(metadata["cut"]))
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in load_file(path).items()}
    missing, unexpected = encoder.load_state_dict(state, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise WeightsError(f"{path.name} does not hold a {metadata['body']} encoder")
    return encoder.eval().requires_grad_(False)
