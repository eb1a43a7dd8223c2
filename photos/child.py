"""The process that decodes: reads photos on stdin, and writes what its decoder makes of them to stdout.

Nothing is pickled: a photo that takes the decoder over can write bytes, and no more. Messages are a length of JSON, a
length of bytes, the JSON, and the bytes.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO, Final

HEADER: Final = struct.Struct(">IQ")
# Takes what is said of a photo, and its file; gives what is said of the pixels, and the pixels.
Decode = Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]


def write(out: BinaryIO, said: dict[str, Any], body: bytes) -> None:
    """Write one message."""
    text = json.dumps(said).encode()
    out.write(HEADER.pack(len(text), len(body)) + text)
    out.write(body)
    out.flush()


def read(source: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; None at the end, wherever that comes."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    texts, bodies = HEADER.unpack(header)
    text, body = source.read(texts), source.read(bodies)
    return (json.loads(text), body) if len(body) == bodies else None


def main(target: str) -> None:
    """Decode until stdin ends, with the function ``module:name``."""
    # Ctrl-C is for the process that asks; a core file would be the photo.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass
    source, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints is not an answer.
    os.dup2(2, 1)
    module, _, name = target.partition(":")
    decode: Decode = getattr(import_module(module), name)
    write(out, {}, b"")
    while asked := read(source):
        try:
            said, body = decode(*asked)
        except Exception as problem:
            said, body = {"kind": type(problem).__name__, "sentence": str(problem)}, b""
        write(out, said, body)
