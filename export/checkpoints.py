"""Reads the generator checkpoints that people have into plain tensors, and runs no pickle while it does.

Pickles are not loaded: `_Machine` steps through their instructions itself and builds records, dictionaries and lists.
A name in a pickle is looked up in a closed table of functions of this module; nothing is imported, no attribute is set,
and no object of the file is ever called. What a file is, is told by its content. Nothing is written anywhere.

Raises, all from `read_checkpoint`::

    CheckpointError(ValueError)         there is no such file, or it cannot be read
    ├── UnsafePickleError               a pickle names or does something that is not in the table
    ├── UnknownFormatError              no container or network that is known here
    │   └── UnsupportedNetworkError     a network that is known and not served: StyleGAN3, TensorFlow's, a discriminator
    ├── DamagedError                    cut short, or it contradicts itself
    └── TooLargeError                   beyond `LIMITS`, or a container beyond its bound
"""

from __future__ import annotations

import errno
import io
import math
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

Kind = Literal["nvlabs", "rosinality", "genforce", "own"]
Key = tuple[str, str]

# A generator for 1024 pixels has 30 million elements, its training checkpoint 1 GB and some 50 000 instructions.
LIMITS = {"bytes": 4 << 30, "instructions": 2_000_000, "elements": 1 << 28, "values": 200_000}
MAX_DEPTH = 32
MAX_DIMENSIONS = 8
MAX_DIRECTORY = MAX_PICKLE = 16 << 20
TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
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


class CheckpointError(ValueError):
    """There is no such file, or it cannot be read."""

    exit_code = 2  # of a command that ends by it: bad input


class UnsafePickleError(CheckpointError):
    """A pickle names or does something that is not in the table."""


class UnknownFormatError(CheckpointError):
    """The file is no container, or holds no network, that is known here."""


class UnsupportedNetworkError(UnknownFormatError):
    """The file holds a network that is recognised and not served."""


class DamagedError(CheckpointError):
    """The file is cut short or contradicts itself."""


class TooLargeError(CheckpointError):
    """The file holds or declares more than a generator's checkpoint does."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One generator as its publisher names it, the moving average of its weights where the file has one.

    Attributes:
        kind: whose names the tensors bear.
        tensors: name to tensor, on the CPU, contiguous, of the type in the file; nvlabs ``synthesis.b4.const``,
            rosinality ``input.input`` with the file's ``latent_avg`` beside, genforce ``synthesis.layer0.weight``.
        attributes: nvlabs: the plain attributes of every module under its dotted name (``z_dim``,
            ``mapping.num_layers``) with ``class_name`` and ``_init_kwargs``; rosinality and genforce: what stands
            beside the networks (``args`` as a dictionary); own: the metadata. Values are numbers, strings, bytes, None,
            numpy arrays, and lists, tuples, sets and dictionaries of these; what is none of them is left out.
    """

    kind: Kind
    tensors: dict[str, Tensor]
    attributes: dict[str, object]


# What files are broken by, as the standard library and safetensors say it.
_BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError)
_BROKEN_ARCHIVE = (*_BROKEN, struct.error, zlib.error, zipfile.BadZipFile, SafetensorError)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a generator's checkpoint: NVlabs' ``.pkl``, rosinality's ``.pt``, genforce's ``.pth``, own safetensors.

    Raises:
        CheckpointError: see the tree in the module's docstring; the message is one sentence.
    """
    if not path.is_file():  # opening a pipe would wait
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        with path.open("rb") as file:
            return _read(path, file, _Budget())
    except CheckpointError as error:
        raise type(error)(f"{path.name} {error}") from None
    except (MemoryError, RecursionError):
        raise TooLargeError(f"{path.name} needs more memory than there is") from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # an archive's directory pointed to before the file
            raise DamagedError(f"{path.name} is damaged") from None
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except _BROKEN_ARCHIVE:
        raise DamagedError(f"{path.name} is damaged") from None


def _read(path: Path, file: BinaryIO, budget: _Budget) -> Checkpoint:
    size = file.seek(0, io.SEEK_END)
    budget.spend("bytes", size)
    file.seek(0)
    head = file.read(9)
    file.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(file, size, budget)
    if head.startswith(b"\x80"):
        return _read_pickle(file, size, budget)
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return _read_safetensors(path, budget)
    raise UnknownFormatError("is no pickle, no torch.save file and no safetensors file")


class _Budget:
    """What is left of `LIMITS` while one file is read."""

    def __init__(self) -> None:
        self._left = dict(LIMITS)

    def spend(self, what: str, amount: int = 1) -> None:
        self._left[what] -= amount
        if self._left[what] < 0:
            raise TooLargeError(f"holds more than {LIMITS[what]} {what}, and no generator's checkpoint does")


# Records: what a pickle is read into. None can be called, and none has a method that the file reaches.


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that the pickle names: only its name."""

    module: str
    attribute: str


@dataclass(slots=True, eq=False)
class _Object:
    """A persistent object of NVlabs or an ``argparse.Namespace``: its class' name and its attributes."""

    class_name: str
    state: dict[object, object] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Storage:
    """A flat buffer in the file, read when a tensor that is wanted lies in it."""

    dtype: torch.dtype
    count: int
    read: Callable[[], bytes | memoryview] | None = None
    flat: Tensor | None = None

    def tensor(self, budget: _Budget) -> Tensor:
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
class _Tensor:
    """A view of a storage, not yet checked."""

    storage: object
    offset: object
    size: object
    stride: object

    def tensor(self, budget: _Budget) -> Tensor:
        """A contiguous copy; the view must lie inside its storage and show no element twice by a stride of 0."""
        storage, offset, size, stride = self.storage, self.offset, _sizes(self.size), _sizes(self.stride)
        if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0 or len(size) != len(stride):
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
class _DType:
    """A numpy type of `ARRAYS`, little-endian."""

    code: str


@dataclass(slots=True, eq=False)
class _Array:
    """A numpy array, not yet checked."""

    dtype: object = None
    shape: object = ()
    data: object = b""
    fortran: bool = False

    def array(self) -> NDArray[np.generic]:
        """A copy of the values."""
        shape = _sizes(self.shape)
        if not isinstance(self.dtype, _DType) or not isinstance(self.data, bytes | bytearray):
            raise DamagedError("holds a numpy array that contradicts itself")
        dtype: np.dtype[np.generic] = np.dtype("<" + self.dtype.code)
        if len(self.data) != math.prod(shape) * dtype.itemsize:
            raise DamagedError("holds a numpy array of another size than it says")
        return np.frombuffer(self.data, dtype).reshape(shape, order="F" if self.fortran else "C").copy()


def _sizes(value: object) -> tuple[int, ...]:
    """A shape or strides: few whole numbers, none negative or larger than any tensor may be."""
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in value):
        raise DamagedError("holds a shape that is none")
    if any(n > LIMITS["elements"] for n in value):
        raise TooLargeError("declares a tensor larger than any generator's")
    return value


# The table: what a name in a pickle stands for. A function here takes the file's arguments; None is a mere name.


T = TypeVar("T")


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise DamagedError(f"holds {type(value).__name__.strip('_')} where {kind.__name__.strip('_')} belongs")
    return value


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *gradient: object) -> _Tensor:
    del gradient
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(data: object, *gradient: object) -> _Tensor:
    del gradient
    return _of(_Tensor, data)


def _persistent_object(meta: object) -> _Object:
    """The module's source in ``meta`` is not looked at."""
    meta = _of(dict, meta)
    if meta.get("type") != "class" or meta.get("version") != PERSISTENCE_VERSION:
        raise UnknownFormatError(f"was not written by version {PERSISTENCE_VERSION} of NVlabs' persistence")
    return _Object(_of(str, meta.get("class_name")), _of(dict, meta.get("state")))


def _dtype(code: object, align: object = 0, copy: object = 0) -> _DType:
    del align, copy
    if not isinstance(code, str) or code not in ARRAYS:
        named = _printable(code) if isinstance(code, str) else "of several"
        raise UnsafePickleError(f"holds a numpy array of type {named}, and only numbers are read")
    return _DType(code)


def _scalar(dtype: object, data: object) -> object:
    return _Array(dtype, (), data).array().item()


def _empty_array(kind: object, shape: object, code: object) -> _Array:
    del kind, shape, code  # all three are placeholders: the state follows
    return _Array()


def _array_of_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    return _Array(dtype, shape, data, order == "F")


def _bytes(text: object, encoding: object) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise DamagedError("holds bytes in a code that pickle does not write")
    return _of(str, text).encode("latin1")


def _set(values: object) -> set[object]:
    return {_hashable(v) for v in _of(list, values)}


def _device(*parts: object) -> str:
    return ":".join(str(_of((int if i else str), part)) for i, part in enumerate(parts))


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
    ("torch", "Size"): lambda size: _of(tuple, size),
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): dict[object, object],
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _bytes,
}
TORCH: Table = {**COMMON, **STORAGES, ("argparse", "Namespace"): partial(_Object, "Namespace")}


def _nvlabs_table(budget: _Budget) -> Table:
    return {
        **COMMON,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
        ("dnnlib.util", "EasyDict"): dict[object, object],
        ("torch.storage", "_load_from_bytes"): partial(_nested_storage, budget),
    }


def _printable(text: str) -> str:
    return ascii(text[:80])[1:-1]


def _hashable(value: object) -> object:
    # Whole numbers beyond 64 bits could be chosen to collide in a dictionary, which then takes quadratic time.
    if type(value) is str or (type(value) is int and abs(value) < 1 << 63):
        return value
    raise DamagedError(f"holds a dictionary key or member of a set of type {type(value).__name__}")


class _Stream:
    """A file as `pickletools` reads it, never asked for more bytes than it has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def read(self, count: int) -> bytes:
        return self.file.read(max(0, min(count, self.size - self.file.tell())))

    def line(self) -> str:
        return self.file.readline(4096).removesuffix(b"\n").decode("ascii")


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PUSHES = {*_INTEGERS, *_TEXTS, "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"BINGET", "LONG_BINGET"}
_FILLS = {"TUPLE", "APPENDS", "SETITEMS", "ADDITEMS"}
_FILLS_ONE = {"APPEND": 1, "SETITEM": 2}
_OTHERS = {"PROTO", "FRAME", "STOP", "MARK", "GLOBAL"}
_BUILDS = {"STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"}
_KNOWN = _PUSHES | _PUTS | _GETS | _FILLS | _OTHERS | _BUILDS | {*_CONSTANTS, *_EMPTY, *_TUPLES, *_FILLS_ONE}


class _Machine:
    """Steps through one pickle, protocols 2 to 5, and builds records from it."""

    def __init__(self, table: Table, budget: _Budget, persistent: Callable[[object], object] | None = None) -> None:
        self.table, self.budget, self.persistent = table, budget, persistent
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}

    def load(self, stream: _Stream) -> object:
        """The value of the pickle that begins where the stream stands, which ends up behind it.

        Raises:
            UnsafePickleError, DamagedError, TooLargeError, UnsupportedNetworkError: see the module's docstring.
        """
        try:
            while True:
                self.budget.spend("instructions")
                code = stream.read(1)
                if not code:
                    raise DamagedError("is cut short")
                opcode = _OPCODES.get(code.decode("latin1"))
                if opcode is None:
                    raise DamagedError("is no whole pickle")
                if opcode.name not in _KNOWN:  # before its argument is decoded
                    raise UnsafePickleError(f"uses the pickle instruction {opcode.name}, which no such file needs")
                if opcode.name == "STOP":
                    return self.stack.pop()
                if opcode.name == "GLOBAL":  # pickletools would take its backslashes for escapes
                    self.stack.append(self.find(stream.line(), stream.line()))
                else:
                    argument = None if opcode.arg is None else opcode.arg.reader(cast(BinaryIO, stream))
                    self.step(opcode.name, argument)
        except CheckpointError:
            raise
        except _BROKEN:
            raise DamagedError("is cut short or no whole pickle") from None

    def step(self, name: str, argument: object) -> None:
        """One instruction."""
        stack = self.stack
        if name in _PUSHES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            values = tuple(stack[-_TUPLES[name] :])
            if len(values) != _TUPLES[name]:
                raise DamagedError("is no whole pickle")
            stack[-_TUPLES[name] :] = [values]
        elif name in _PUTS:
            self.memo[len(self.memo) if name == "MEMOIZE" else _of(int, argument)] = stack[-1]
        elif name in _GETS:
            stack.append(self.memo[_of(int, argument)])
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name in _FILLS:
            self.stack = self.marks.pop()
            self.fill(name, stack)
        elif name in _FILLS_ONE:
            items = stack[-_FILLS_ONE[name] :]
            del stack[-_FILLS_ONE[name] :]
            self.fill(f"{name}S", items)
        elif name in _BUILDS:
            self.build(name)

    def fill(self, name: str, items: list[object]) -> None:
        """Close a tuple, or put items into the container below them."""
        if name == "TUPLE":
            self.stack.append(tuple(items))
        elif name == "APPENDS":
            _of(list, self.stack[-1]).extend(items)
        elif name == "ADDITEMS":
            _of(set, self.stack[-1]).update(_hashable(item) for item in items)
        else:
            keys = [_hashable(key) for key in items[::2]]
            _of(dict, self.stack[-1]).update(zip(keys, items[1::2], strict=True))

    def build(self, name: str) -> None:
        """Names, and what is made of them."""
        stack = self.stack
        if name == "STACK_GLOBAL":
            attribute, module = _of(str, stack.pop()), _of(str, stack.pop())
            stack.append(self.find(module, attribute))
        elif name == "BINPERSID":
            if self.persistent is None:
                raise UnsafePickleError("refers to an object outside of the pickle")
            stack.append(self.persistent(stack.pop()))
        elif name == "BUILD":
            _set_state(stack[-2], stack.pop())
        else:  # REDUCE and NEWOBJ
            arguments, called = _of(tuple, stack.pop()), stack.pop()
            function = self.table[called.module, called.attribute] if isinstance(called, _Name) else None
            if function is None:
                raise UnsafePickleError("calls something that is not in the table of what may stand in a checkpoint")
            stack.append(function(*arguments))

    def find(self, module: str, attribute: str) -> _Name:
        """The name, if it is in the table."""
        if (module, attribute) in self.table:
            return _Name(module, attribute)
        if module.startswith("dnnlib.tflib") or module == "tfutil":
            raise UnsupportedNetworkError(
                "holds TensorFlow's networks; convert them to PyTorch with legacy.py of NVlabs' stylegan3 and read that"
            )
        full = _printable(f"{module}.{attribute}")
        raise UnsafePickleError(
            f"names {full}, which is not in the table of what may stand in a checkpoint; nothing of it was run"
        )


def _set_state(target: object, state: object) -> None:
    if isinstance(target, _Object) and target.class_name == "Namespace":
        target.state = _of(dict, state)
    elif isinstance(target, _Array):
        _, target.shape, target.dtype, fortran, target.data = _of(tuple, state)
        target.fortran = fortran is True
    elif isinstance(target, _DType):
        if _of(tuple, state)[1] not in {"<", "|", "="}:
            raise DamagedError("holds a numpy array in big-endian order")
    elif not isinstance(target, dict):  # a state dict's _metadata lies in an attribute; nothing here needs it
        raise UnsafePickleError(f"sets the attributes of a value of type {type(target).__name__.strip('_')}")


# Containers.


def _storage_of(identity: object, storages: dict[object, _Storage]) -> _Storage:
    """The storage of torch's persistent id ``("storage", type, key, device, count[, view])``."""
    tag, kind, key, _, count, *view = _of(tuple, identity)
    if tag != "storage" or not isinstance(kind, _Name) or ("torch", kind.attribute) not in STORAGES or any(view):
        raise DamagedError("refers to a storage as torch.save does not")
    if type(count) is not int or count < 0:
        raise DamagedError("declares a storage of no size")
    dtype = DTYPES[kind.attribute]
    known = storages.setdefault(_hashable(key), _Storage(dtype, count))
    if (known.dtype, known.count) != (dtype, count):
        raise DamagedError("declares one storage twice")
    return known


def _load_legacy(stream: _Stream, table: Table, budget: _Budget) -> object:
    """The object of a torch.save stream of the old kind, which begins where the stream stands."""
    storages: dict[object, _Storage] = {}
    if _Machine({}, budget).load(stream) != TORCH_MAGIC or _Machine({}, budget).load(stream) != TORCH_PROTOCOL:
        raise DamagedError("is no whole torch.save file")
    if _of(dict, _Machine({}, budget).load(stream)).get("little_endian") is not True:
        raise DamagedError("was written in big-endian order")
    value = _Machine(table, budget, lambda identity: _storage_of(identity, storages)).load(stream)
    for key in _of(list, _Machine({}, budget).load(stream)):
        storage = storages[_hashable(key)]
        (count,) = struct.unpack("<q", stream.read(8))
        start, size = stream.file.tell(), storage.count * storage.dtype.itemsize
        if count != storage.count or start + size > stream.size:
            raise DamagedError("is cut short")
        storage.read = partial(_read_at, stream, start, size)
        stream.file.seek(start + size)
    return value


def _read_at(stream: _Stream, start: int, size: int) -> bytes:
    stream.file.seek(start)
    return stream.read(size)


def _nested_storage(budget: _Budget, data: object) -> _Storage:
    """``torch.storage._load_from_bytes``: a whole torch.save stream, in which nothing but one storage may stand."""
    data = _of(bytes, data)
    return _of(_Storage, _load_legacy(_Stream(io.BytesIO(data), len(data)), STORAGES, budget))


def _read_pickle(file: BinaryIO, size: int, budget: _Budget) -> Checkpoint:
    stream = _Stream(file, size)
    first = file.read(14)
    file.seek(0)
    if first[:4] == b"\x80\x02\x8a\x0a" and int.from_bytes(first[4:], "little") == TORCH_MAGIC:
        return _of_torch(_load_legacy(stream, TORCH, budget), budget)
    return _of_nvlabs(_Machine(_nvlabs_table(budget), budget).load(stream), budget)


def _read_zip(file: BinaryIO, size: int, budget: _Budget) -> Checkpoint:
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        root = next((name.split("/")[0] for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)), None)
        if root is None or f"{root}/constants.pkl" in entries:
            raise UnknownFormatError("is a zip archive, but not of tensors that torch.save wrote")

        def read(name: str) -> bytes:
            entry = entries[f"{root}/{name}"]
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise DamagedError("holds an entry that torch.save does not write")
            return archive.read(entry)

        def persistent(identity: object) -> _Storage:
            storage = _storage_of(identity, storages)
            storage.read = partial(read, f"data/{_of(str, _of(tuple, identity)[2])}")
            return storage

        storages: dict[object, _Storage] = {}
        if f"{root}/byteorder" in entries and read("byteorder") != b"little":
            raise DamagedError("was written in big-endian order")
        if entries[f"{root}/data.pkl"].file_size > MAX_PICKLE:
            raise TooLargeError("holds a larger pickle than any generator's checkpoint")
        pickle = read("data.pkl")
        value = _Machine(TORCH, budget, persistent).load(_Stream(io.BytesIO(pickle), len(pickle)))
        return _of_torch(value, budget)


def _check_directory(file: BinaryIO, size: int) -> None:
    """Bound the archive's directory, of which `zipfile` makes objects of ten times its size."""
    file.seek(max(0, size - 98))
    tail = file.read(98).rjust(98, b"\0")
    file.seek(0)
    if tail[-22:-18] != b"PK\x05\x06":
        raise DamagedError("is cut short")
    directory: int = struct.unpack("<I", tail[-10:-6])[0]
    if tail[-42:-38] == b"PK\x06\x07":  # the 64-bit record, which goes before
        directory = struct.unpack("<Q", tail[40:48])[0]
    if directory > MAX_DIRECTORY:
        raise TooLargeError("holds more entries than any generator's checkpoint")


def _read_safetensors(path: Path, budget: _Budget) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        if "fingerprint" not in metadata:
            raise UnknownFormatError("is a safetensors file, but no generator that this project wrote")
        tensors = {}
        for name in file.keys():  # noqa: SIM118  safe_open is no mapping
            budget.spend("values")
            budget.spend("elements", math.prod(file.get_slice(name).get_shape()))
            tensors[name] = file.get_tensor(name).clone()
    return Checkpoint(kind="own", tensors=tensors, attributes={**metadata})


# Networks.


def _of_nvlabs(value: object, budget: _Budget) -> Checkpoint:
    network = value
    if isinstance(value, dict):
        network = value.get("G_ema")
        if network is None and "D" in value and "G" not in value:
            raise UnsupportedNetworkError("holds a discriminator and no generator")
    if not isinstance(network, _Object):
        raise UnknownFormatError("is a pickle without NVlabs' G_ema")
    found: dict[str, _Tensor] = {}
    attributes: dict[str, object] = {}
    for at, module in _modules(network, "", 0, budget):
        found |= _tensors_of(module, at, budget)
        attributes |= _attributes_of(module, at, budget)
    if _kind(found) != "nvlabs":
        raise UnknownFormatError("holds a pickled network under other names than NVlabs'")
    return Checkpoint(kind="nvlabs", tensors=_tensors(found, budget), attributes=attributes)


def _modules(module: _Object, at: str, depth: int, budget: _Budget) -> Iterator[tuple[str, _Object]]:
    """A module and those in it, each with the prefix of its dotted names."""
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nests modules deeper than {MAX_DEPTH}")
    budget.spend("values", 1 + len(module.state))
    yield at, module
    for name, inner in _members(module, "_modules", budget):
        yield from _modules(_of(_Object, inner), f"{at}{name}.", depth + 1, budget)


def _members(module: _Object, group: str, budget: _Budget) -> Iterator[tuple[str, object]]:
    for name, value in _of(dict, module.state.get(group, {})).items():
        budget.spend("values")
        if "." in _of(str, name):  # it could pass for another module's
            raise DamagedError("holds a module with a dot in its name")
        if value is not None:
            yield name, value


def _tensors_of(module: _Object, at: str, budget: _Budget) -> dict[str, _Tensor]:
    members = [*_members(module, "_parameters", budget), *_members(module, "_buffers", budget)]
    return {f"{at}{name}": _of(_Tensor, value) for name, value in members}


def _attributes_of(module: _Object, at: str, budget: _Budget) -> dict[str, object]:
    found: dict[str, object] = {f"{at}class_name": module.class_name}
    for name, value in module.state.items():
        if name in {"_init_args", "_init_kwargs"} or not _of(str, name).startswith("_"):
            found[f"{at}{name}"] = _plain(value, 0, budget)
    return {name: value for name, value in found.items() if value is not _LEFT_OUT}


def _of_torch(value: object, budget: _Budget) -> Checkpoint:
    if not isinstance(value, dict):
        raise UnknownFormatError("holds no dictionary of tensors")
    nested = value.get("models")
    networks = nested if isinstance(nested, dict) else value
    # genforce's own tools fall back on the plain weights; rosinality's never do.
    names = ("g_ema", "generator_smooth", "generator")
    taken = next((name for name in names if isinstance(networks.get(name), dict)), None)
    state = value if taken is None else networks[taken]
    if taken is None and not any(isinstance(v, _Tensor) for v in value.values()):
        if "d" in value or "discriminator" in networks:
            raise UnsupportedNetworkError("holds a discriminator and no generator's averaged weights (g_ema)")
        raise UnknownFormatError("holds none of g_ema, generator_smooth and generator")
    found = {_of(str, k): v for k, v in state.items() if isinstance(v, _Tensor)}
    if found and all(name.startswith("module.") for name in found):  # written by a model in parallel
        found = {name.removeprefix("module."): v for name, v in found.items()}
    kind = _kind(found)
    if kind == "rosinality" and isinstance(value.get("latent_avg"), _Tensor):
        found["latent_avg"] = value["latent_avg"]
    attributes = {} if taken is None else _beside(value, {*names, "models", "g", "d", "discriminator"}, budget)
    return Checkpoint(kind=kind, tensors=_tensors(found, budget), attributes=attributes)


def _beside(value: dict[object, object], networks: set[str], budget: _Budget) -> dict[str, object]:
    """What is plain beside the networks; optimizers hold tensors and are left out whole."""
    names = [name for name in value if name not in networks and "optim" not in str(name)]
    found = {str(name): _plain(value[name], 0, budget) for name in names}
    return {name: item for name, item in found.items() if item is not _LEFT_OUT}


def _kind(names: Iterable[str]) -> Literal["nvlabs", "rosinality", "genforce"]:
    """Whose generator of StyleGAN or StyleGAN2 bears these names.

    Raises:
        UnknownFormatError: nobody's; `UnsupportedNetworkError` if it is another network that is known.
    """
    held = set(names)
    if "synthesis.input.freqs" in held or any(re.match(r"synthesis\.L\d+_", name) for name in held):
        _unsupported("a StyleGAN3 generator")
    if "lod" in held or {"layer0.weight", "output0.weight"} <= held:
        _unsupported("a PGGAN generator")
    if held & {"final_linear.0.weight", "b4.out.weight", "input0.weight"}:
        _unsupported("a discriminator")
    if "synthesis.b4.const" in held:
        return "nvlabs"
    if {"style.1.weight", "input.input"} <= held:
        return "rosinality"
    if "mapping.dense0.weight" in held and held & {"synthesis.layer0.weight", "synthesis.layer0.const"}:
        return "genforce"
    raise UnknownFormatError("holds tensors, but under the names of no generator that is known here")


def _unsupported(network: str) -> NoReturn:
    raise UnsupportedNetworkError(f"holds {network}, and only generators of StyleGAN and StyleGAN2 are served")


def _tensors(found: dict[str, _Tensor], budget: _Budget) -> dict[str, Tensor]:
    budget.spend("values", len(found))
    return {name: view.tensor(budget) for name, view in found.items()}


_LEFT_OUT = object()


def _plain(value: object, depth: int, budget: _Budget) -> object:
    """The value without records, or `_LEFT_OUT`; spends for each visit, since a pickle can share what it nests."""
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nests values deeper than {MAX_DEPTH}")
    budget.spend("values")
    if isinstance(value, _Object) and value.class_name == "Namespace":
        value = value.state
    if isinstance(value, _Name):
        return f"{value.module}.{value.attribute}"
    if isinstance(value, _Array):
        budget.spend("elements", math.prod(_sizes(value.shape)))
        return value.array()
    if isinstance(value, dict):
        pairs = ((k, _plain(v, depth + 1, budget)) for k, v in value.items())
        return {k: v for k, v in pairs if v is not _LEFT_OUT}
    if isinstance(value, list | tuple | set):
        return type(value)(v for v in (_plain(v, depth + 1, budget) for v in value) if v is not _LEFT_OUT)
    return value if value is None or isinstance(value, bool | int | float | str | bytes) else _LEFT_OUT
