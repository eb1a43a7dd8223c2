"""Safetensors files with string metadata: read as hostile, written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as codec

from client.atomic import read_bounded, write_all
from client.errors import ClientError
from client.text import quoted

Stored = NDArray[np.float32] | NDArray[np.uint8]


def encode(tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file; tensors keep their dtype, float32 or uint8.

    The same content has the same bytes: the library writes the metadata in an order that changes from run to run.
    """
    arrays = {name: np.array(value, order="C", copy=None) for name, value in tensors.items()}
    data = codec.save(arrays, metadata=dict(metadata))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # The tensors begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def save(path: str | os.PathLike[str], tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    write_all({Path(path): encode(tensors, metadata)})


def load(
    path: str | os.PathLike[str], *, limit: int, error: type[ClientError]
) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Read a safetensors file of at most ``limit`` bytes: its tensors and its metadata.

    Raises:
        error: there is no such file, or it is not a whole safetensors file.
    """
    data = read_bounded(path, limit=limit, error=error)
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or data[8:9] != b"{" or size < 2:
        raise error(f"cannot read {quoted(path)}: not a safetensors file")
    try:
        tensors = codec.load(data)
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        strings = {key: value for key, value in metadata.items() if isinstance(value, str)}
    except Exception as problem:
        # The parser of a foreign file may raise anything; the file is unusable either way.
        raise error(f"cannot read {quoted(path)}: a truncated or damaged safetensors file") from problem
    return tensors, strings


def require(
    tensors: Mapping[str, NDArray[np.generic]], name: str, *, what: str, error: type[ClientError]
) -> NDArray[np.float32]:
    """Return the finite float32 tensor ``name``; raise ``error`` where it is missing or something else."""
    if name not in tensors:
        raise error(f"{what} has no tensor '{name}'")
    if wrong := fault(tensors[name]):
        raise error(f"tensor '{name}' of {what} {wrong}")
    return np.asarray(tensors[name], dtype=np.float32)


def fault(tensor: NDArray[np.generic]) -> str | None:
    """Return why a tensor is not finite float32; None where it is."""
    if tensor.dtype != np.float32:
        return f"is {tensor.dtype}, not float32"
    return None if np.isfinite(tensor).all() else "holds numbers that are not finite"
