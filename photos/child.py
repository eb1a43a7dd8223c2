"""The process that decodes: reads photos on stdin, and writes what its decoder makes of them to stdout.

Nothing is pickled: a photo that takes the decoder over can write bytes, and no more. Messages are a length of JSON, a
length of bytes, the JSON, and the bytes.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, Final

HEADER: Final = struct.Struct(">IQ")
# Limit of the process; the largest photo takes half of it.
MEMORY: Final = 3 << 30


@dataclass(frozen=True)
class Pieces:
    """A body of ``length`` bytes that is made as it is sent: all of a large photo's would not fit into memory."""

    length: int
    made: Iterator[bytes]


Body = bytes | Pieces
# Takes what is said of a photo, and its file; gives what is said of the pixels, and the pixels.
Decode = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], Body]]


def write(out: BinaryIO, said: dict[str, Any], body: Body) -> None:
    """Write one message."""
    text = json.dumps(said).encode()
    length, pieces = (len(body), iter((body,))) if isinstance(body, bytes) else (body.length, body.made)
    out.write(HEADER.pack(len(text), length) + text)
    for piece in pieces:
        out.write(piece)
        length -= len(piece)
    assert length == 0, "a message is as long as it says"
    out.flush()


def read_head(source: BinaryIO) -> tuple[dict[str, Any], int] | None:
    """Read the beginning of a message, and the length of the body that follows; None at the end."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    texts, bodies = HEADER.unpack(header)
    text = source.read(texts)
    return (json.loads(text), bodies) if len(text) == texts else None


def answered(source: BinaryIO, decode: Decode) -> tuple[dict[str, Any], Body] | None:
    """Read a request and decode; None at the end, wherever that comes."""
    if (head := read_head(source)) is None:
        return None
    said, length = head
    data = source.read(length)
    if len(data) < length:
        return None
    try:
        return decode(said, data)
    except Exception as problem:
        return {"kind": type(problem).__name__, "sentence": str(problem)}, b""


def allow(seconds: float) -> None:
    """Let this process end if it computes for longer than so many seconds from now, its threads together.

    So a photo that its process's owner did not live to end is ended, too.
    """
    used, (_, most) = time.process_time(), resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(used + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def main(target: str) -> None:
    """Decode until stdin ends, with the function ``module:name``."""
    # Ctrl-C is for the process that asks; a core file would be the photo.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    source, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints is not an answer.
    os.dup2(2, 1)
    module, _, name = target.partition(":")
    decode: Decode = getattr(import_module(module), name)
    write(out, {}, b"")
    while answer := answered(source, decode):
        write(out, *answer)
        # It may be a large photo.
        del answer
