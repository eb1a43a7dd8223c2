"""Unpickles with a closed table of names: those in it make inert records, as do foreign classes; others are refused.

A pickle can make `pickle.Unpickler` do six things: look up a name (`find_class`: the table, nothing else), call a value
(`Name.__call__` or a record type), make an instance of a type (record types only), set a state (``__setstate__`` of
records), fill lists, dictionaries and sets, and refer to a storage (`persistent_load`). All six are in this module and
in `export.checkpoints.records`. The process that this runs in bounds memory and time (`export.checkpoints.child`).
"""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from export.checkpoints.errors import CheckpointError, DamagedError, UnsafePickleError, UnsupportedNetworkError
from export.checkpoints.records import Dropped, Name, Table, printable

# Errors of the standard library about broken files.
BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# In these, an unknown name is an attack, or a format that cannot be read.
_LIBRARIES = sys.stdlib_module_names | {"__builtin__", "copy_reg", "dnnlib", "numpy", "torch", "torch_utils"}
_NO_STATE = ("attribute '__dict__'", "has no attribute", "__setstate__", "__class__ must be set")


class ClosedUnpickler(pickle.Unpickler):
    """Reads one pickle into records.

    Args:
        file: positioned at the pickle; afterwards, after it.
        table: the names that the pickle may use.
        persistent: makes a storage from a persistent id of torch; None refuses them.
    """

    def __init__(self, file: BinaryIO, table: Table, persistent: Callable[[object], object] | None = None) -> None:
        super().__init__(file)
        self._table, self._persistent = table, persistent

    def find_class(self, module_name: str, global_name: str, /) -> object:
        """The entry in the table, or what drops a foreign class; nothing is imported, dotted names stay whole."""
        full = f"{module_name}.{global_name}"
        try:
            entry = self._table[module_name, global_name]
        except KeyError as missing:
            if module_name.startswith("dnnlib.tflib") or module_name == "tfutil":
                raise UnsupportedNetworkError(
                    "holds networks of TensorFlow: convert them to PyTorch with legacy.py of NVlabs' stylegan3"
                ) from missing
            if is_foreign(module_name):
                return Dropped
            raise UnsafePickleError(
                f"names {printable(full)}, which no generator's checkpoint needs; nothing was run"
            ) from missing
        # Only types can be instantiated without a call (NEWOBJ), and only records are types.
        return entry if isinstance(entry, type) else Name(full, entry)

    def persistent_load(self, pid: object, /) -> object:
        """A storage."""
        if self._persistent is None:
            raise UnsafePickleError("refers to an object outside the pickle")
        return self._persistent(pid)


def unpickled(file: BinaryIO, table: Table, persistent: Callable[[object], object] | None = None) -> object:
    """The value of the pickle at the file's position.

    Raises:
        UnsafePickleError, DamagedError, UnsupportedNetworkError: see `export.checkpoints.errors`.
    """
    with broken_is_damaged("is not a whole pickle"):
        return ClosedUnpickler(file, table, persistent).load()


@contextmanager
def broken_is_damaged(message: str) -> Iterator[None]:
    """Turn the standard library's errors about broken files into `DamagedError`."""
    try:
        yield
    except (CheckpointError, RecursionError):
        raise
    except BROKEN as error:
        said = str(error)
        if "not callable" in said:
            raise UnsafePickleError("calls something that no generator's checkpoint calls") from error
        if isinstance(error, AttributeError | TypeError) and any(part in said for part in _NO_STATE):
            raise UnsafePickleError("sets the attributes of a value that has none") from error
        raise DamagedError(message) from error


def is_foreign(module: str) -> bool:
    """Whether a module is of no library that checkpoints are made of: a training script's own, or of random numbers.

    Its classes are as inert as all others here, and may stand beside a network.
    """
    first, *_ = parts = module.split(".")
    return all(map(str.isidentifier, parts)) and (first not in _LIBRARIES or parts[:2] == ["numpy", "random"])
