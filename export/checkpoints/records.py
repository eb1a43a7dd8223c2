"""The inert records that a checkpoint's pickle becomes, and the names that it may use. No torch.

Each name stands for a function here, for a record type, or only for itself. None of them runs, imports or opens
anything, whatever its arguments are.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from export.checkpoints.errors import DamagedError, TooLargeError, UnknownFormatError, UnsafePickleError

# A generator of 1024 px has 30 million elements, and its training checkpoint 1 GB.
LIMITS = {"bytes": 4 << 30, "elements": 1 << 28, "values": 200_000}
MAX_DIMENSIONS = 8
PERSISTENCE_VERSION = 6
# Torch's type, and the NumPy type of its bits; NumPy has no bfloat16.
STORAGES = {
    "DoubleStorage": ("float64", "f8"),
    "FloatStorage": ("float32", "f4"),
    "HalfStorage": ("float16", "f2"),
    "BFloat16Storage": ("bfloat16", "u2"),
    "LongStorage": ("int64", "i8"),
    "IntStorage": ("int32", "i4"),
    "ShortStorage": ("int16", "i2"),
    "CharStorage": ("int8", "i1"),
    "ByteStorage": ("uint8", "u1"),
    "BoolStorage": ("bool", "u1"),
}
ARRAYS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
T = TypeVar("T")


class Budget:
    """What is left of `LIMITS` during the reading of a file."""

    def __init__(self) -> None:
        self._left = dict(LIMITS)

    def spend(self, what: str, amount: int = 1) -> None:
        """Raise `TooLargeError` if less than ``amount`` is left."""
        self._left[what] -= amount
        if self._left[what] < 0:
            raise TooLargeError(f"holds more than {LIMITS[what]} {what}, which no generator's checkpoint does")


class Inert:
    """Base of the records; the pickle may not set a state unless a record accepts it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise UnsafePickleError(f"sets the attributes of a value of type {type(self).__name__}")


class Name(Inert):
    """A name in the pickle: its text, and the function that it stands for, or None."""

    __slots__ = ("_function", "text")

    def __init__(self, text: str, function: Callable[..., object] | None) -> None:
        self.text, self._function = text, function

    def __call__(self, *arguments: object) -> object:
        """Call the function with the file's arguments."""
        if self._function is None:
            raise UnsafePickleError(f"calls {printable(self.text)}, which no generator's checkpoint calls")
        return self._function(*arguments)


class Mapped(dict[object, object]):
    """A dictionary of any class; its attributes, such as the ``_metadata`` of a state dict, are dropped."""

    def __setstate__(self, state: object) -> None:
        del state


class Namespace(Inert):
    """An ``argparse.Namespace``."""

    state: dict[object, object]

    def __new__(cls) -> Namespace:
        """A namespace without attributes."""
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: object) -> None:
        self.state = of(dict, state)


class Dropped(Inert):
    """A value that is not needed, such as a date or one of a foreign class; its contents are dropped."""

    __slots__ = ()

    def __new__(cls, *arguments: object, **named: object) -> Dropped:
        """Drop the arguments."""
        del arguments, named
        return super().__new__(cls)

    def __init__(self, *arguments: object, **named: object) -> None:
        del arguments, named

    def __setstate__(self, state: object) -> None:
        del state

    def append(self, value: object) -> None:
        """Drop it."""

    def add(self, value: object) -> None:
        """Drop it."""

    def __setitem__(self, key: object, value: object) -> None:
        del key, value


class Module(Inert):
    """A persistent object of NVlabs: class name and attributes."""

    def __init__(self, class_name: str, state: dict[object, object]) -> None:
        self.class_name, self.state = class_name, state


@dataclass(slots=True, eq=False)
class Storage(Inert):
    """A flat buffer in the file, read only if a tensor in it is needed."""

    kind: str  # of STORAGES
    count: int
    read: Callable[[], bytes | memoryview] | None = None
    flat: NDArray[np.generic] | None = None

    def array(self, budget: Budget) -> NDArray[np.generic]:
        """The values [count], as the bits of their type."""
        if self.flat is None:
            if self.read is None:
                raise DamagedError("lacks the values of a tensor")
            budget.spend("elements", self.count)
            data, dtype = self.read(), np.dtype("<" + STORAGES[self.kind][1])
            if len(data) != self.count * dtype.itemsize:
                raise DamagedError("holds a tensor whose size is wrong")
            self.flat = np.frombuffer(data, dtype)
        return self.flat


@dataclass(slots=True, eq=False)
class View(Inert):
    """A tensor: a view of a storage, not yet checked."""

    storage: object
    offset: object
    size: object
    stride: object

    def array(self, budget: Budget) -> tuple[str, NDArray[np.generic]]:
        """Torch's name of the type, and a contiguous copy [size]; the view must be inside its storage."""
        storage, offset, size, stride = self.storage, self.offset, sizes(self.size), sizes(self.stride)
        if not isinstance(storage, Storage) or type(offset) is not int or offset < 0 or len(size) != len(stride):
            raise DamagedError("holds an inconsistent tensor")
        name, bits = STORAGES[storage.kind]
        count = math.prod(size)
        if not count:
            if math.prod(max(n, 1) for n in size) >= 1 << 62:
                raise TooLargeError("declares a tensor larger than any generator's")
            return name, np.empty(size, bits)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        repeats = any(n > 1 and step == 0 for n, step in zip(size, stride, strict=True))
        if count > storage.count or last >= storage.count or repeats:
            raise DamagedError("holds a tensor that is larger than its storage")
        budget.spend("elements", count)
        flat = storage.array(budget)
        strides = tuple(step * flat.itemsize for step in stride)
        seen = np.lib.stride_tricks.as_strided(flat[offset:], size, strides, writeable=False)
        return name, seen != 0 if name == "bool" else np.array(seen, order="C")


@dataclass(slots=True, eq=False)
class DType(Inert):
    """A little-endian NumPy type of `ARRAYS`."""

    code: str

    def __setstate__(self, state: object) -> None:
        if of(tuple, state)[1] not in {"<", "|", "="}:
            raise DamagedError("holds a big-endian NumPy array")


@dataclass(slots=True, eq=False)
class Array(Inert):
    """A NumPy array, not yet checked."""

    dtype: object = None
    shape: object = ()
    data: object = b""
    fortran: bool = False

    def __setstate__(self, state: object) -> None:
        _, self.shape, self.dtype, fortran, self.data = of(tuple, state)
        self.fortran = fortran is True

    def array(self) -> NDArray[np.generic]:
        """The values."""
        shape = sizes(self.shape)
        if not isinstance(self.dtype, DType) or not isinstance(self.data, bytes | bytearray):
            raise DamagedError("holds an inconsistent NumPy array")
        dtype: np.dtype[np.generic] = np.dtype("<" + self.dtype.code)
        if len(self.data) != math.prod(shape) * dtype.itemsize:
            raise DamagedError("holds a NumPy array whose size is wrong")
        return np.frombuffer(self.data, dtype).reshape(shape, order="F" if self.fortran else "C")


def sizes(value: object) -> tuple[int, ...]:
    """A shape or strides, checked: a few whole numbers from 0 to the largest tensor."""
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in value):
        raise DamagedError("holds an invalid shape")
    if any(n > LIMITS["elements"] for n in value):
        raise TooLargeError("declares a tensor larger than any generator's")
    return value


def of(kind: type[T], value: object) -> T:
    """The value, if it is of this type."""
    if not isinstance(value, kind):
        raise DamagedError(f"holds a {type(value).__name__} instead of a {kind.__name__}")
    return value


def printable(text: str) -> str:
    """The start of a text, as ASCII."""
    return ascii(text[:80])[1:-1]


# What the names stand for. A function takes the file's arguments.


def _view(storage: object, offset: object, size: object, stride: object, *gradient: object) -> View:
    del gradient
    return View(storage, offset, size, stride)


def _parameter(data: object, *gradient: object) -> View:
    del gradient
    return of(View, data)


def _module(meta: object) -> Module:
    """A module; its source in ``meta`` is ignored."""
    meta = of(dict, meta)
    if meta.get("type") != "class" or meta.get("version") != PERSISTENCE_VERSION:
        raise UnknownFormatError(f"is not of version {PERSISTENCE_VERSION} of NVlabs' persistence")
    return Module(of(str, meta.get("class_name")), of(dict, meta.get("state")))


def _dtype(code: object, align: object = 0, copy: object = 0) -> DType:
    del align, copy
    if not isinstance(code, str) or code not in ARRAYS:
        named = printable(code) if isinstance(code, str) else "of several"
        raise UnsafePickleError(f"holds a NumPy array of type {named}; only numbers are allowed")
    return DType(code)


def _scalar(dtype: object, data: object) -> object:
    return Array(dtype, (), data).array().item()


def _empty_array(kind: object, shape: object, code: object) -> Array:
    del kind, shape, code  # placeholders: the state follows
    return Array()


def _array_of_buffer(data: object, dtype: object, shape: object, order: object) -> Array:
    return Array(dtype, shape, data, order == "F")


def _bytes(text: object, encoding: object) -> bytes:
    """Bytes, as protocol 2 writes them."""
    if encoding != "latin1":
        raise DamagedError("holds bytes in an encoding that pickle does not write")
    return of(str, text).encode("latin1")


def _device(*parts: object) -> str:
    return ":".join(str(of((int if i else str), part)) for i, part in enumerate(parts))


def _path(*parts: object) -> str:
    return posixpath.join("", *(of(str, part) for part in parts))


def _defaults(*factory: object) -> Mapped:
    del factory
    return Mapped()


Entry = Callable[..., object] | None  # the pickle gets a type itself, but a function only through its Name
Table = Mapping[tuple[str, str], Entry]
_NUMPY: dict[tuple[str, str], Entry] = {("numpy", "dtype"): _dtype, ("numpy", "ndarray"): None}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _NUMPY[f"{_core}.multiarray", "scalar"] = _scalar
    _NUMPY[f"{_core}.multiarray", "_reconstruct"] = _empty_array
    _NUMPY[f"{_core}.numeric", "_frombuffer"] = _array_of_buffer
_BESIDE: dict[tuple[str, str], Entry] = {
    # What training scripts save beside the weights.
    **{("pathlib", name): _path for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")},
    **{("pathlib._local", name): _path for name in ("PosixPath", "WindowsPath")},
    ("collections", "defaultdict"): _defaults,
    ("collections", "Counter"): Mapped,
    ("collections", "deque"): Dropped,
    **{("datetime", name): Dropped for name in ("date", "datetime", "time", "timedelta", "timezone")},
    **dict.fromkeys((("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID")), Dropped),
    ("types", "SimpleNamespace"): Dropped,
    **{("builtins", name): Dropped for name in ("bytearray", "complex", "frozenset", "range", "slice")},
    **{("__builtin__", name): Dropped for name in ("bytearray", "complex", "frozenset", "slice", "xrange")},
    **{("builtins", name): None for name in ("bool", "dict", "float", "int", "list", "str", "tuple")},
    **{
        ("__builtin__", name): None
        for name in ("bool", "dict", "float", "int", "list", "long", "str", "tuple", "unicode")
    },
}
TENSOR_STORAGES: Table = {("torch", name): None for name in STORAGES}
COMMON: dict[tuple[str, str], Entry] = {
    **_NUMPY,
    **_BESIDE,
    **{("torch", name): None for name, _ in STORAGES.values()},
    ("torch._utils", "_rebuild_tensor"): _view,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch", "Size"): lambda size: of(tuple, size),
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): Mapped,
    ("builtins", "set"): lambda values: of(list, values),
    ("__builtin__", "set"): lambda values: of(list, values),
    ("_codecs", "encode"): _bytes,
    ("argparse", "Namespace"): Namespace,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _module,
    ("dnnlib.util", "EasyDict"): Mapped,
}
TORCH: Table = {**COMMON, **TENSOR_STORAGES}
