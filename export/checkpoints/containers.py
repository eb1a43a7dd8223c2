"""The containers of checkpoints: NVlabs' pickle, torch.save's archive, and its older stream. Imports no torch."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from functools import partial
from typing import BinaryIO

from export.checkpoints.errors import DamagedError, TooLargeError, UnknownFormatError
from export.checkpoints.records import COMMON, STORAGES, TENSOR_STORAGES, TORCH, Name, Storage, of
from export.checkpoints.unpickler import unpickled

MAX_DIRECTORY = MAX_PICKLE = 16 << 20
TORCH_MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
Storages = dict[object, Storage]


def is_archive(head: bytes) -> bool:
    """Whether a file begins as a zip archive does."""
    return head.startswith(b"PK\x03\x04")


def is_torch_stream(head: bytes) -> bool:
    """Whether a file begins as torch.save's streams did before its archives."""
    return head[:4] == b"\x80\x02\x8a\x0a" and int.from_bytes(head[4:14], "little") == TORCH_MAGIC


def nvlabs_value(file: BinaryIO) -> object:
    """The value of a pickle of NVlabs, in which every storage is a stream of torch.save."""
    table = {**COMMON, ("torch.storage", "_load_from_bytes"): _nested_storage}
    return unpickled(file, table)


def stream_value(file: BinaryIO) -> object:
    """The value of a torch.save stream, which begins where the file stands."""
    return _stream(file, torch_table=True)


def archive_value(file: BinaryIO, size: int) -> object:
    """The value of a torch.save archive of so many bytes.

    Raises:
        UnknownFormatError: it is an archive of something else.
    """
    _check_directory(file, size)
    archive = zipfile.ZipFile(file)  # stays open: storages are read from it later
    entries = {entry.filename: entry for entry in archive.infolist()}
    root = next((name.split("/")[0] for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)), None)
    if root is None or f"{root}/constants.pkl" in entries:
        raise UnknownFormatError("is a zip archive, but not of tensors that torch.save wrote")

    def read(name: str) -> bytes:
        entry = entries[f"{root}/{name}"]
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise DamagedError("holds an entry that torch.save does not write")
        return archive.read(entry)

    def persistent(identity: object) -> Storage:
        storage = _storage_of(identity, storages)
        storage.read = partial(read, f"data/{of(str, of(tuple, identity)[2])}")
        return storage

    storages: Storages = {}
    if f"{root}/byteorder" in entries and read("byteorder") != b"little":
        raise DamagedError("is big-endian")
    if entries[f"{root}/data.pkl"].file_size > MAX_PICKLE:
        raise TooLargeError("holds a larger pickle than any generator's checkpoint")
    return unpickled(io.BytesIO(read("data.pkl")), TORCH, persistent)


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


def _storage_of(identity: object, storages: Storages) -> Storage:
    """The storage of torch's persistent identity ``("storage", type, key, device, count[, view])``."""
    tag, kind, key, _, count, *view = of(tuple, identity)
    name = kind.text.removeprefix("torch.") if isinstance(kind, Name) else ""
    if tag != "storage" or name not in STORAGES or not isinstance(key, str | int) or any(view):
        raise DamagedError("refers to a storage as torch.save does not")
    if type(count) is not int or count < 0:
        raise DamagedError("declares a storage without a size")
    known = storages.setdefault(key, Storage(name, count))
    if (known.kind, known.count) != (name, count):
        raise DamagedError("declares a storage twice")
    return known


def _stream(file: BinaryIO, *, torch_table: bool) -> object:
    """Four pickles (a magic number, a version, the machine, the value), the storages' keys, and their bytes."""
    storages: Storages = {}
    if unpickled(file, {}) != TORCH_MAGIC or unpickled(file, {}) != TORCH_PROTOCOL:
        raise DamagedError("is not a whole torch.save file")
    if of(dict, unpickled(file, {})).get("little_endian") is not True:
        raise DamagedError("is big-endian")
    table = TORCH if torch_table else TENSOR_STORAGES
    value = unpickled(file, table, lambda identity: _storage_of(identity, storages))
    keys, start = of(list, unpickled(file, {})), file.tell()
    size = file.seek(0, io.SEEK_END)
    for key in keys:
        storage = storages[key]
        file.seek(start)
        (count,) = struct.unpack("<q", file.read(8))
        start, length = start + 8, storage.count * int(STORAGES[storage.kind][1][1])
        if count != storage.count or start + length > size:
            raise DamagedError("is cut short")
        storage.read = partial(_read_at, file, start, length)
        start += length
    return value


def _read_at(file: BinaryIO, start: int, length: int) -> bytes | memoryview:
    if isinstance(file, io.BytesIO):
        return file.getbuffer()[start : start + length]
    file.seek(start)
    return file.read(length)


def _nested_storage(data: object) -> Storage:
    """``torch.storage._load_from_bytes``: a whole stream, in which nothing but one storage may stand."""
    return of(Storage, _stream(io.BytesIO(of(bytes, data)), torch_table=False))
