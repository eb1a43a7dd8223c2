"""Reads the generator checkpoints that people have into plain tensors, and runs no pickle while it does.

Pickles are not loaded: `export.checkpoints.pickle_machine` steps through their instructions itself and builds records,
dictionaries and lists. A name in a pickle is looked up in a closed table of functions of
`export.checkpoints.pickle_records`; nothing is imported, no attribute is set, and no object of the file is ever called.
What a file is, is told by its content. Nothing is written anywhere. What `read_checkpoint` raises is the tree in
`export.checkpoints.errors`.
"""

from __future__ import annotations

import errno
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

from safetensors import SafetensorError, safe_open
from torch import Tensor

from export.checkpoints.errors import (
    CheckpointError,
    DamagedError,
    TooLargeError,
    UnknownFormatError,
    UnsupportedNetworkError,
)
from export.checkpoints.pickle_machine import Machine, Stream
from export.checkpoints.pickle_records import (
    BROKEN,
    COMMON,
    DTYPES,
    MAX_DEPTH,
    STORAGES,
    TORCH,
    ArrayRecord,
    Budget,
    NameRecord,
    ObjectRecord,
    StorageRecord,
    Table,
    TensorRecord,
    hashable,
    of,
    persistent_object,
    sizes,
)

Kind = Literal["nvlabs", "rosinality", "genforce", "own"]
MAX_DIRECTORY = MAX_PICKLE = 16 << 20
TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


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


_BROKEN_ARCHIVE = (*BROKEN, struct.error, zlib.error, zipfile.BadZipFile, SafetensorError)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a generator's checkpoint: NVlabs' ``.pkl``, rosinality's ``.pt``, genforce's ``.pth``, own safetensors.

    Raises:
        CheckpointError: see the tree in the module's docstring; the message is one sentence.
    """
    if not path.is_file():  # opening a pipe would wait
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        with path.open("rb") as file:
            return _read(path, file, Budget())
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


def _read(path: Path, file: BinaryIO, budget: Budget) -> Checkpoint:
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


def _nvlabs_table(budget: Budget) -> Table:
    return {
        **COMMON,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent_object,
        ("dnnlib.util", "EasyDict"): dict[object, object],
        ("torch.storage", "_load_from_bytes"): partial(_nested_storage, budget),
    }


# Containers.


def _storage_of(identity: object, storages: dict[object, StorageRecord]) -> StorageRecord:
    """The storage of torch's persistent id ``("storage", type, key, device, count[, view])``."""
    tag, kind, key, _, count, *view = of(tuple, identity)
    if tag != "storage" or not isinstance(kind, NameRecord) or ("torch", kind.attribute) not in STORAGES or any(view):
        raise DamagedError("refers to a storage as torch.save does not")
    if type(count) is not int or count < 0:
        raise DamagedError("declares a storage of no size")
    dtype = DTYPES[kind.attribute]
    known = storages.setdefault(hashable(key), StorageRecord(dtype, count))
    if (known.dtype, known.count) != (dtype, count):
        raise DamagedError("declares one storage twice")
    return known


def _load_legacy(stream: Stream, table: Table, budget: Budget) -> object:
    """The object of a torch.save stream of the old kind, which begins where the stream stands."""
    storages: dict[object, StorageRecord] = {}
    if Machine({}, budget).load(stream) != TORCH_MAGIC or Machine({}, budget).load(stream) != TORCH_PROTOCOL:
        raise DamagedError("is no whole torch.save file")
    if of(dict, Machine({}, budget).load(stream)).get("little_endian") is not True:
        raise DamagedError("was written in big-endian order")
    value = Machine(table, budget, lambda identity: _storage_of(identity, storages)).load(stream)
    for key in of(list, Machine({}, budget).load(stream)):
        storage = storages[hashable(key)]
        (count,) = struct.unpack("<q", stream.read(8))
        start, size = stream.file.tell(), storage.count * storage.dtype.itemsize
        if count != storage.count or start + size > stream.size:
            raise DamagedError("is cut short")
        storage.read = partial(_read_at, stream, start, size)
        stream.file.seek(start + size)
    return value


def _read_at(stream: Stream, start: int, size: int) -> bytes:
    stream.file.seek(start)
    return stream.read(size)


def _nested_storage(budget: Budget, data: object) -> StorageRecord:
    """``torch.storage._load_from_bytes``: a whole torch.save stream, in which nothing but one storage may stand."""
    data = of(bytes, data)
    return of(StorageRecord, _load_legacy(Stream(io.BytesIO(data), len(data)), STORAGES, budget))


def _read_pickle(file: BinaryIO, size: int, budget: Budget) -> Checkpoint:
    stream = Stream(file, size)
    first = file.read(14)
    file.seek(0)
    if first[:4] == b"\x80\x02\x8a\x0a" and int.from_bytes(first[4:], "little") == TORCH_MAGIC:
        return _of_torch(_load_legacy(stream, TORCH, budget), budget)
    return _of_nvlabs(Machine(_nvlabs_table(budget), budget).load(stream), budget)


def _read_zip(file: BinaryIO, size: int, budget: Budget) -> Checkpoint:
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

        def persistent(identity: object) -> StorageRecord:
            storage = _storage_of(identity, storages)
            storage.read = partial(read, f"data/{of(str, of(tuple, identity)[2])}")
            return storage

        storages: dict[object, StorageRecord] = {}
        if f"{root}/byteorder" in entries and read("byteorder") != b"little":
            raise DamagedError("was written in big-endian order")
        if entries[f"{root}/data.pkl"].file_size > MAX_PICKLE:
            raise TooLargeError("holds a larger pickle than any generator's checkpoint")
        pickle = read("data.pkl")
        value = Machine(TORCH, budget, persistent).load(Stream(io.BytesIO(pickle), len(pickle)))
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


def _read_safetensors(path: Path, budget: Budget) -> Checkpoint:
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


def _of_nvlabs(value: object, budget: Budget) -> Checkpoint:
    network = value
    if isinstance(value, dict):
        network = value.get("G_ema")
        if network is None and "D" in value and "G" not in value:
            raise UnsupportedNetworkError("holds a discriminator and no generator")
    if not isinstance(network, ObjectRecord):
        raise UnknownFormatError("is a pickle without NVlabs' G_ema")
    found: dict[str, TensorRecord] = {}
    attributes: dict[str, object] = {}
    for at, module in _modules(network, "", 0, budget):
        found |= _tensors_of(module, at, budget)
        attributes |= _attributes_of(module, at, budget)
    if _kind(found) != "nvlabs":
        raise UnknownFormatError("holds a pickled network under other names than NVlabs'")
    return Checkpoint(kind="nvlabs", tensors=_tensors(found, budget), attributes=attributes)


def _modules(module: ObjectRecord, at: str, depth: int, budget: Budget) -> Iterator[tuple[str, ObjectRecord]]:
    """A module and those in it, each with the prefix of its dotted names."""
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nests modules deeper than {MAX_DEPTH}")
    budget.spend("values", 1 + len(module.state))
    yield at, module
    for name, inner in _members(module, "_modules", budget):
        yield from _modules(of(ObjectRecord, inner), f"{at}{name}.", depth + 1, budget)


def _members(module: ObjectRecord, group: str, budget: Budget) -> Iterator[tuple[str, object]]:
    for name, value in of(dict, module.state.get(group, {})).items():
        budget.spend("values")
        if "." in of(str, name):  # it could pass for another module's
            raise DamagedError("holds a module with a dot in its name")
        if value is not None:
            yield name, value


def _tensors_of(module: ObjectRecord, at: str, budget: Budget) -> dict[str, TensorRecord]:
    members = [*_members(module, "_parameters", budget), *_members(module, "_buffers", budget)]
    return {f"{at}{name}": of(TensorRecord, value) for name, value in members}


def _attributes_of(module: ObjectRecord, at: str, budget: Budget) -> dict[str, object]:
    found: dict[str, object] = {f"{at}class_name": module.class_name}
    for name, value in module.state.items():
        if name in {"_init_args", "_init_kwargs"} or not of(str, name).startswith("_"):
            found[f"{at}{name}"] = _plain(value, 0, budget)
    return {name: value for name, value in found.items() if value is not _LEFT_OUT}


def _of_torch(value: object, budget: Budget) -> Checkpoint:
    if not isinstance(value, dict):
        raise UnknownFormatError("holds no dictionary of tensors")
    nested = value.get("models")
    networks = nested if isinstance(nested, dict) else value
    # genforce's own tools fall back on the plain weights; rosinality's never do.
    names = ("g_ema", "generator_smooth", "generator")
    taken = next((name for name in names if isinstance(networks.get(name), dict)), None)
    state = value if taken is None else networks[taken]
    if taken is None and not any(isinstance(v, TensorRecord) for v in value.values()):
        if "d" in value or "discriminator" in networks:
            raise UnsupportedNetworkError("holds a discriminator and no generator's averaged weights (g_ema)")
        raise UnknownFormatError("holds none of g_ema, generator_smooth and generator")
    found = {of(str, k): v for k, v in state.items() if isinstance(v, TensorRecord)}
    if found and all(name.startswith("module.") for name in found):  # written by a model in parallel
        found = {name.removeprefix("module."): v for name, v in found.items()}
    kind = _kind(found)
    if kind == "rosinality" and isinstance(value.get("latent_avg"), TensorRecord):
        found["latent_avg"] = value["latent_avg"]
    attributes = {} if taken is None else _beside(value, {*names, "models", "g", "d", "discriminator"}, budget)
    return Checkpoint(kind=kind, tensors=_tensors(found, budget), attributes=attributes)


def _beside(value: dict[object, object], networks: set[str], budget: Budget) -> dict[str, object]:
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


def _tensors(found: dict[str, TensorRecord], budget: Budget) -> dict[str, Tensor]:
    budget.spend("values", len(found))
    return {name: view.tensor(budget) for name, view in found.items()}


_LEFT_OUT = object()


def _plain(value: object, depth: int, budget: Budget) -> object:
    """The value without records, or `_LEFT_OUT`; spends for each visit, since a pickle can share what it nests."""
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nests values deeper than {MAX_DEPTH}")
    budget.spend("values")
    if isinstance(value, ObjectRecord) and value.class_name == "Namespace":
        value = value.state
    if isinstance(value, NameRecord):
        return f"{value.module}.{value.attribute}"
    if isinstance(value, ArrayRecord):
        budget.spend("elements", math.prod(sizes(value.shape)))
        return value.array()
    if isinstance(value, dict):
        pairs = ((k, _plain(v, depth + 1, budget)) for k, v in value.items())
        return {k: v for k, v in pairs if v is not _LEFT_OUT}
    if isinstance(value, list | tuple | set):
        return type(value)(v for v in (_plain(v, depth + 1, budget) for v in value) if v is not _LEFT_OUT)
    return value if value is None or isinstance(value, bool | int | float | str | bytes) else _LEFT_OUT
