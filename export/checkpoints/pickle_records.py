"""What a checkpoint's pickle is read into: records without methods that a file reaches, and the table of its names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.checkpoints.errors import DamagedError, TooLargeError, UnknownFormatError, UnsafePickleError

Key = tuple[str, str]

# A generator for 1024 pixels has 30 million elements, its training checkpoint 1 GB and some 50 000 instructions.
LIMITS = {"bytes": 4 << 30, "instructions": 2_000_000, "elements": 1 << 28, "values": 200_000}
MAX_DEPTH = 32
MAX_DIMENSIONS = 8
PERSISTENCE_VERSION = 6
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
ARRAYS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
# What files are broken by, as the standard library says it.
BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError)


class Budget:
    """What is left of `LIMITS` while one file is read."""

    def __init__(self) -> None:
        self._left = dict(LIMITS)

    def spend(self, what: str, amount: int = 1) -> None:
        """Raise `TooLargeError` where less than that is left."""
        self._left[what] -= amount
        if self._left[what] < 0:
            raise TooLargeError(f"holds more than {LIMITS[what]} {what}, and no generator's checkpoint does")


# Records: what a pickle is read into. None can be called, and none has a method that the file reaches.


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A global that the pickle names: only its name."""

    module: str
    attribute: str


@dataclass(slots=True, eq=False)
class ObjectRecord:
    """A persistent object of NVlabs or an ``argparse.Namespace``: its class' name and its attributes."""

    class_name: str
    state: dict[object, object] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class StorageRecord:
    """A flat buffer in the file, read when a tensor that is wanted lies in it."""

    dtype: torch.dtype
    count: int
    read: Callable[[], bytes | memoryview] | None = None
    flat: Tensor | None = None

    def tensor(self, budget: Budget) -> Tensor:
        """[count], a copy."""
        if self.flat is None:
            if self.read is None:
                raise DamagedError("lacks the values of a tensor")
            budget.spend("elements", self.count)
            data = bytearray(self.read())
            if len(data) != self.count * self.dtype.itemsize:
                raise DamagedError("holds a tensor of another size than it says")
            bits = torch.uint8 if self.dtype is torch.bool else self.dtype
            flat = torch.frombuffer(data, dtype=bits) if data else torch.empty(0, dtype=bits)
            self.flat = flat.ne(0) if self.dtype is torch.bool else flat
        return self.flat


@dataclass(slots=True, eq=False)
class TensorRecord:
    """A view of a storage, not yet checked."""

    storage: object
    offset: object
    size: object
    stride: object

    def tensor(self, budget: Budget) -> Tensor:
        """A contiguous copy; the view must lie inside its storage and show no element twice by a stride of 0."""
        storage, offset, size, stride = self.storage, self.offset, sizes(self.size), sizes(self.stride)
        if not isinstance(storage, StorageRecord) or type(offset) is not int or offset < 0 or len(size) != len(stride):
            raise DamagedError("holds a tensor that contradicts itself")
        count = math.prod(size)
        if not count:
            if math.prod(max(n, 1) for n in size) >= 1 << 62:
                raise TooLargeError("declares a tensor larger than any generator's")
            return torch.empty(size, dtype=storage.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        repeats = any(n > 1 and step == 0 for n, step in zip(size, stride, strict=True))
        if count > storage.count or last >= storage.count or repeats:
            raise DamagedError("holds a tensor that reaches beyond its storage")
        budget.spend("elements", count)
        return storage.tensor(budget).as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)


@dataclass(slots=True, eq=False)
class DTypeRecord:
    """A numpy type of `ARRAYS`, little-endian."""

    code: str


@dataclass(slots=True, eq=False)
class ArrayRecord:
    """A numpy array, not yet checked."""

    dtype: object = None
    shape: object = ()
    data: object = b""
    fortran: bool = False

    def array(self) -> NDArray[np.generic]:
        """A copy of the values."""
        shape = sizes(self.shape)
        if not isinstance(self.dtype, DTypeRecord) or not isinstance(self.data, bytes | bytearray):
            raise DamagedError("holds a numpy array that contradicts itself")
        dtype: np.dtype[np.generic] = np.dtype("<" + self.dtype.code)
        if len(self.data) != math.prod(shape) * dtype.itemsize:
            raise DamagedError("holds a numpy array of another size than it says")
        return np.frombuffer(self.data, dtype).reshape(shape, order="F" if self.fortran else "C").copy()


def sizes(value: object) -> tuple[int, ...]:
    """A shape or strides: few whole numbers, none negative or larger than any tensor may be."""
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in value):
        raise DamagedError("holds a shape that is none")
    if any(n > LIMITS["elements"] for n in value):
        raise TooLargeError("declares a tensor larger than any generator's")
    return value


# The table: what a name in a pickle stands for. A function here takes the file's arguments; None is a mere name.


T = TypeVar("T")


def of(kind: type[T], value: object) -> T:
    """The value, which must be of a kind."""
    if not isinstance(value, kind):
        raise DamagedError(
            f"holds {type(value).__name__.removesuffix('Record')} where {kind.__name__.removesuffix('Record')} belongs"
        )
    return value


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *gradient: object) -> TensorRecord:
    del gradient
    return TensorRecord(storage, offset, size, stride)


def _rebuild_parameter(data: object, *gradient: object) -> TensorRecord:
    del gradient
    return of(TensorRecord, data)


def persistent_object(meta: object) -> ObjectRecord:
    """The module's source in ``meta`` is not looked at."""
    meta = of(dict, meta)
    if meta.get("type") != "class" or meta.get("version") != PERSISTENCE_VERSION:
        raise UnknownFormatError(f"was not written by version {PERSISTENCE_VERSION} of NVlabs' persistence")
    return ObjectRecord(of(str, meta.get("class_name")), of(dict, meta.get("state")))


def _dtype(code: object, align: object = 0, copy: object = 0) -> DTypeRecord:
    del align, copy
    if not isinstance(code, str) or code not in ARRAYS:
        named = printable(code) if isinstance(code, str) else "of several"
        raise UnsafePickleError(f"holds a numpy array of type {named}, and only numbers are read")
    return DTypeRecord(code)


def _scalar(dtype: object, data: object) -> object:
    return ArrayRecord(dtype, (), data).array().item()


def _empty_array(kind: object, shape: object, code: object) -> ArrayRecord:
    del kind, shape, code  # all three are placeholders: the state follows
    return ArrayRecord()


def _array_of_buffer(data: object, dtype: object, shape: object, order: object) -> ArrayRecord:
    return ArrayRecord(dtype, shape, data, order == "F")


def _bytes(text: object, encoding: object) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise DamagedError("holds bytes in a code that pickle does not write")
    return of(str, text).encode("latin1")


def _set(values: object) -> set[object]:
    return {hashable(v) for v in of(list, values)}


def _device(*parts: object) -> str:
    return ":".join(str(of((int if i else str), part)) for i, part in enumerate(parts))


Table = Mapping[Key, Callable[..., object] | None]
_NUMPY: dict[Key, Callable[..., object] | None] = {("numpy", "dtype"): _dtype, ("numpy", "ndarray"): None}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _NUMPY[f"{_core}.multiarray", "scalar"] = _scalar
    _NUMPY[f"{_core}.multiarray", "_reconstruct"] = _empty_array
    _NUMPY[f"{_core}.numeric", "_frombuffer"] = _array_of_buffer
STORAGES: Table = {("torch", name): None for name in DTYPES}
COMMON: Table = {
    **_NUMPY,
    **{("torch", str(dtype).removeprefix("torch.")): None for dtype in DTYPES.values()},
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch", "Size"): lambda size: of(tuple, size),
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): dict[object, object],
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _bytes,
}
TORCH: Table = {**COMMON, **STORAGES, ("argparse", "Namespace"): partial(ObjectRecord, "Namespace")}


def printable(text: str) -> str:
    """The beginning of a text, as ASCII."""
    return ascii(text[:80])[1:-1]


def hashable(value: object) -> object:
    """The value, which must be fit for a dictionary's key."""
    # Whole numbers beyond 64 bits could be chosen to collide in a dictionary, which then takes quadratic time.
    if type(value) is str or (type(value) is int and abs(value) < 1 << 63):
        return value
    raise DamagedError(f"holds a dictionary key or member of a set of type {type(value).__name__}")
