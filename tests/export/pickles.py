"""Pickles assembled by hand, instruction by instruction."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass


@dataclass
class Global:
    module: str
    name: str


@dataclass
class Call:
    function: object
    arguments: tuple[object, ...] = ()
    opcode: bytes = b"R"


@dataclass
class Build:
    target: object
    state: object


@dataclass
class Persistent:
    identity: object


@dataclass
class Raw:
    data: bytes


def emit(value: object) -> bytes:
    """The instructions that leave ``value`` on the stack."""
    match value:
        case Raw(data):
            return data
        case Global(module, name) if "." in name:
            return emit(module) + emit(name) + b"\x93"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments, opcode):
            return emit(function) + emit(arguments) + opcode
        case Build(target, state):
            return emit(target) + emit(state) + b"b"
        case Persistent(identity):
            return emit(identity) + b"Q"
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(emit(v) for v in value) + b"t"
        case list():
            return b"](" + b"".join(emit(v) for v in value) + b"e"
        case dict():
            return b"}(" + b"".join(emit(k) + emit(v) for k, v in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def assembled(value: object) -> bytes:
    return b"\x80\x04" + emit(value) + b"."


def legacy(value: object, storages: dict[str, bytes] | None = None, magic: object = 0x1950A86A20F9469CFC6C) -> bytes:
    storages = storages or {}
    data = pickle.dumps(magic, 2) if isinstance(magic, int) else assembled(magic)
    data += pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    data += b"\x80\x02" + emit(value) + b"." + assembled(list(storages))
    return data + b"".join(struct.pack("<q", len(content) // 4) + content for content in storages.values())


def zipped(value: object, storages: dict[str, bytes] | None = None, how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        archive.writestr("archive/data.pkl", assembled(value))
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return out.getvalue()


def storage(count: object, key: object = "0", kind: object = None) -> Persistent:
    return Persistent(("storage", kind or Global("torch", "FloatStorage"), key, "cpu", count))


def old_storage(count: object, kind: object = None) -> Persistent:
    return Persistent(("storage", kind or Global("torch", "FloatStorage"), "0", "cpu", count, None))


def loaded(data: bytes) -> Call:
    """A storage of which the pickle holds a whole stream."""
    return Call(Global("torch.storage", "_load_from_bytes"), (data,))


def view(flat: object, offset: object, size: object, stride: object) -> Call:
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), (flat, offset, size, stride, False, {}))


def generator(tensor: object) -> dict[object, object]:
    return {"g_ema": {"style.1.weight": tensor, "input.input": tensor}}


def persistent(state: object) -> Call:
    meta = {"type": "class", "version": 6, "module_src": "", "class_name": "Generator", "state": state}
    return Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))


def network(tensor: object, attributes: dict[str, object] | None = None) -> Call:
    block = persistent({"_buffers": {"const": tensor}})
    synthesis = persistent({"_modules": {"b4": block}})
    return persistent({"_modules": {"synthesis": synthesis}, **(attributes or {})})
