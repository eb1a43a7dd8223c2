"""``python -m export.checkpoints.child FILE OUT SECONDS``: reads a checkpoint in a process that can be ended.

The process bounds its memory and its processor time. Then it seals itself: an audit hook ends it if anything opens a
file, imports, compiles or starts something during the reading. OUT becomes a safetensors file. If FILE is refused, the
reason is one line of JSON on stdout, and the exit status is 2. Torch is not imported.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from export.checkpoints.containers import archive_value, is_archive, is_torch_stream, nvlabs_value, stream_value
from export.checkpoints.errors import CheckpointError, DamagedError, TooLargeError, UnknownFormatError
from export.checkpoints.networks import FoundGenerator, of_nvlabs, of_torch
from export.checkpoints.records import LIMITS, Budget
from export.checkpoints.unpickler import broken_is_damaged

REFUSED = 2  # exit status
SEALED = 3  # exit status: the file tried to run something
MEMORY = 1 << 30  # bytes beyond twice the file's size
# safetensors' names of the types.
TYPES = {
    **{f"float{n}": f"F{n}" for n in (16, 32, 64)},
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    "bfloat16": "BF16",
    "uint8": "U8",
    "bool": "BOOL",
}
_seal: list[str] = []


def read(file: BinaryIO) -> FoundGenerator:
    """The generator in a pickle or a torch.save file.

    Raises:
        CheckpointError: see `export.checkpoints.errors`.
    """
    budget = Budget()
    size = file.seek(0, io.SEEK_END)
    budget.spend("bytes", size)
    file.seek(0)
    head = file.read(14)
    file.seek(0)
    try:
        with broken_is_damaged("is damaged"):
            if is_archive(head):
                return of_torch(archive_value(file, size), budget)
            if is_torch_stream(head):
                return of_torch(stream_value(file), budget)
            if head.startswith(b"\x80"):
                return of_nvlabs(nvlabs_value(file), budget)
    except (MemoryError, RecursionError) as error:
        raise TooLargeError("needs more memory than any generator's checkpoint") from error
    except OSError as error:  # an archive's directory points outside the file
        raise DamagedError("is damaged") from error
    raise UnknownFormatError("is not a pickle, a torch.save file or a safetensors file")


def write(found: FoundGenerator, file: BinaryIO) -> None:
    """Write a safetensors file, with the attributes as JSON in its metadata."""
    metadata = {"kind": found.kind, "attributes": json.dumps(found.attributes)}
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    # The widest types first, so that every tensor is aligned.
    ordered = sorted(found.tensors.items(), key=lambda item: -item[1][1].itemsize)
    for name, (dtype, values) in ordered:
        header[name] = {"dtype": TYPES[dtype], "shape": values.shape, "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, (_, values) in ordered:
        file.write(np.ascontiguousarray(values).reshape(-1).data)


@contextmanager
def sealed() -> Iterator[None]:
    """End this process at any audited event inside, such as opening a file or an import."""
    if not _seal:
        sys.addaudithook(_end_if_sealed)
    _seal.append("sealed")
    try:
        yield
    finally:
        _seal[:] = ["open"]


def _end_if_sealed(event: str, _arguments: tuple[object, ...]) -> None:
    if _seal[-1] == "sealed" and event != "object.__getattr__":
        os.write(2, f"sealed: {event}\n".encode())
        os._exit(SEALED)


def main(arguments: list[str]) -> int:
    """Read one file, and return the exit status."""
    source, target = Path(arguments[0]), Path(arguments[1])
    seconds = int(arguments[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    memory = MEMORY + 2 * min(source.stat().st_size, LIMITS["bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with source.open("rb") as file, target.open("wb") as out:
        try:
            with sealed():
                write(read(file), out)
        except CheckpointError as error:
            print(json.dumps([type(error).__name__, str(error)]))
            return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
