"""Checkpoints of other people: what is in them comes back bit-identical, and nothing in them ever runs."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import random
import struct
import sys
import tracemalloc
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export.checkpoints import pickle_records
from export.checkpoints import reader as checkpoints
from export.checkpoints.errors import (
    CheckpointError,
    DamagedError,
    TooLargeError,
    UnknownFormatError,
    UnsafePickleError,
    UnsupportedNetworkError,
)
from export.checkpoints.reader import Checkpoint, read_checkpoint

State = dict[str, torch.Tensor]
RNG = torch.Generator().manual_seed(0)


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=RNG)


# Files as their publishers write them.


class Published(torch.nn.Module):
    """A module that pickles as NVlabs' ``persistent_class`` does."""

    def __init__(self, class_name: str, members: dict[str, Any], **attributes: object) -> None:
        super().__init__()
        self.class_name_ = class_name
        for name, member in members.items():
            if isinstance(member, torch.Tensor) and not isinstance(member, torch.nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)
        self.__dict__.update(attributes)

    def __reduce__(self) -> tuple[object, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "class_name_"}
        source = f"open({str(Path.cwd() / 'source-was-run')!r}, 'w')"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.class_name_, "state": state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,), None


@pytest.fixture
def nvlabs_modules(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """``torch_utils.persistence`` and ``dnnlib.util``, for writing; the reader is used without them."""

    def _reconstruct_persistent_obj(meta: object) -> object:
        raise AssertionError(meta)

    class EasyDict(dict[str, object]):
        def __getattr__(self, name: str) -> object:
            try:
                return self[name]
            except KeyError:
                raise AttributeError(name) from None

    for full, thing in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        package, module = types.ModuleType(full.split(".")[0]), types.ModuleType(full)
        thing.__module__, thing.__qualname__ = full, thing.__name__
        setattr(module, thing.__name__, thing)
        setattr(package, full.split(".")[1], module)
        monkeypatch.setitem(sys.modules, package.__name__, package)
        monkeypatch.setitem(sys.modules, full, module)
    return types.SimpleNamespace(EasyDict=EasyDict)


def parameter(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(values(*shape), requires_grad=False)


def dense(inner: int, outer: int) -> Published:
    members = {"weight": parameter(outer, inner), "bias": parameter(outer)}
    return Published("FullyConnectedLayer", members, activation="lrelu", weight_gain=1 / np.sqrt(inner))


def layer(class_name: str, channels: int, size: int) -> Published:
    weight = values(channels, channels, 3, 3).to(memory_format=torch.channels_last)
    members = {
        "weight": torch.nn.Parameter(weight, requires_grad=False),
        "bias": parameter(channels),
        "affine": dense(4, channels),
        "resample_filter": values(4, 4),
        "noise_const": values(size, size).half(),
        "noise_strength": torch.nn.Parameter(torch.zeros([]), requires_grad=False),
    }
    return Published(class_name, members, up=1, use_noise=True, conv_clamp=None, act_gain=np.sqrt(2))


def nvlabs_generator(easy: Callable[..., object] = dict) -> Published:
    """Generator of stylegan2-ada-pytorch for 8 pixels, narrow."""
    mapping = {"fc0": dense(4, 4), "fc1": dense(4, 4), "w_avg": values(4)}
    b4 = {"const": parameter(2, 4, 4), "conv1": layer("SynthesisLayer", 2, 4), "resample_filter": values(4, 4)}
    b8 = {"conv0": layer("SynthesisLayer", 2, 8), "torgb": layer("ToRGBLayer", 2, 8), "resample_filter": values(4, 4)}
    synthesis = {
        "b4": Published("SynthesisBlock", b4, is_last=False, num_conv=np.int64(1)),
        "b8": Published("SynthesisBlock", b8, is_last=True, in_size=np.arange(6).reshape(3, 2).T),
    }
    return Published(
        "Generator",
        {
            "synthesis": Published("SynthesisNetwork", synthesis, block_resolutions=[4, 8], num_fp16_res=0),
            "mapping": Published("MappingNetwork", mapping, num_layers=2, w_avg_beta=0.995),
        },
        z_dim=4, w_dim=4, c_dim=0, num_ws=4, img_resolution=8, img_channels=3,
        _init_args=(), _init_kwargs=easy(z_dim=4, mapping_kwargs=easy(num_layers=2)),
    )  # fmt: skip


def rosinality_state() -> State:
    return {
        "style.1.weight": values(4, 4),
        "style.1.bias": values(4),
        "input.input": values(1, 4, 4, 4),
        "conv1.conv.weight": values(1, 4, 4, 3, 3),
        "conv1.conv.modulation.weight": values(4, 4),
        "conv1.noise.weight": values(1),
        "conv1.activate.bias": values(4),
        "to_rgb1.bias": values(1, 3, 1, 1),
        "noises.noise_0": values(1, 1, 4, 4),
    }


def rosinality_file() -> dict[str, object]:
    """As ``train.py`` writes it, optimizer and arguments included."""
    weight = torch.nn.Parameter(values(3))
    optimizer = torch.optim.Adam([weight])
    weight.grad = values(3)
    optimizer.step()
    return {
        "g": rosinality_state(),
        "d": {"convs.0.0.weight": values(2, 2)},
        "g_ema": rosinality_state(),
        "g_optim": optimizer.state_dict(),
        "args": argparse.Namespace(size=8, latent=4, n_mlp=1, channel_multiplier=2, path="/data"),
        "ada_aug_p": 0.25,
        "latent_avg": values(4),
    }


def genforce_state() -> State:
    return {
        "mapping.dense0.weight": values(4, 4),
        "mapping.dense0.bias": values(4),
        "truncation.w_avg": values(4),
        "synthesis.early_layer.const": values(1, 4, 4, 4),
        "synthesis.layer0.weight": values(4, 4, 3, 3),
        "synthesis.layer0.style.weight": values(4, 4),
        "synthesis.layer0.noise_strength": torch.tensor(0.5),
        "synthesis.output0.weight": values(3, 4, 1, 1),
    }


def genforce_file() -> dict[str, object]:
    discriminator = {"input0.weight": values(2)}
    return {"generator": genforce_state(), "discriminator": discriminator, "generator_smooth": genforce_state()}


def saved(value: object, *, zipped: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def read(data: bytes, folder: Path) -> Checkpoint:
    path = folder / "file.bin"  # the name says nothing
    path.write_bytes(data)
    return read_checkpoint(path)


@contextmanager
def in_little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def assert_same(found: State, expected: State) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].is_contiguous()
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nvlabs(protocol: int, nvlabs_modules: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    network = nvlabs_generator(nvlabs_modules.EasyDict)
    discriminator = Published("Discriminator", {"b4": Published("Epilogue", {"out": dense(2, 1)})})
    options = nvlabs_modules.EasyDict(class_name="training.dataset.ImageFolderDataset", path="/data", use_labels=False)
    top = {"G": nvlabs_generator(), "D": discriminator, "G_ema": network}
    data = pickle.dumps({**top, "augment_pipe": None, "training_set_kwargs": options}, protocol=protocol)
    monkeypatch.undo()
    assert "torch_utils.persistence" not in sys.modules
    found = read(data, tmp_path)
    assert found.kind == "nvlabs"
    assert_same(found.tensors, network.state_dict())
    assert "synthesis.b4.const" in found.tensors
    known = {"class_name": "Generator", "z_dim": 4, "img_resolution": 8, "training": True, "mapping.num_layers": 2}
    known |= {"_init_kwargs": {"z_dim": 4, "mapping_kwargs": {"num_layers": 2}}, "synthesis.block_resolutions": [4, 8]}
    known |= {"synthesis.b4.num_conv": 1, "mapping.fc0.weight_gain": 0.5, "synthesis.b4.conv1.conv_clamp": None}
    assert {name: found.attributes[name] for name in known} == known
    assert found.attributes["mapping.fc0.class_name"] == "FullyConnectedLayer"
    np.testing.assert_array_equal(np.asarray(found.attributes["synthesis.b8.in_size"]), np.arange(6).reshape(3, 2).T)
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_nvlabs_written_with_numpy_1(nvlabs_modules: Any, tmp_path: Path) -> None:
    network = nvlabs_generator(nvlabs_modules.EasyDict)
    data = pickle.dumps({"G_ema": network}, protocol=3)
    assert b"numpy._core.multiarray\n" in data
    found = read(data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"), tmp_path)
    assert_same(found.tensors, network.state_dict())


@pytest.mark.usefixtures("nvlabs_modules")
def test_a_network_alone(tmp_path: Path) -> None:
    network = nvlabs_generator()
    assert_same(read(pickle.dumps(network), tmp_path).tensors, network.state_dict())


@pytest.mark.parametrize("zipped", [True, False])
def test_rosinality(zipped: bool, tmp_path: Path) -> None:
    file = rosinality_file()
    found = read(saved(file, zipped=zipped), tmp_path)
    assert found.kind == "rosinality"
    assert_same(found.tensors, {**file["g_ema"], "latent_avg": file["latent_avg"]})  # type: ignore[dict-item]
    args = {"size": 8, "latent": 4, "n_mlp": 1, "channel_multiplier": 2, "path": "/data"}
    assert found.attributes == {"args": args, "ada_aug_p": 0.25}


@pytest.mark.parametrize("zipped", [True, False])
def test_genforce(zipped: bool, tmp_path: Path) -> None:
    file = genforce_file()
    smooth: Any = file["generator_smooth"]
    running = {"models": file, "running_metadata": {"iter": 3, "seen_img": 12}}
    parallel = {f"module.{name}": value for name, value in smooth.items()}
    for content in (file, smooth, running, {"generator": smooth}, {"generator_smooth": parallel}):
        found = read(saved(content, zipped=zipped), tmp_path)
        assert found.kind == "genforce"
        assert_same(found.tensors, smooth)
    assert read(saved(running), tmp_path).attributes == {"running_metadata": {"iter": 3, "seen_img": 12}}


def test_own(tmp_path: Path) -> None:
    state = {"mapping.w_avg": values(4), "synthesis.const": values(2, 2).half()}
    save_file(state, tmp_path / "own.bin", metadata={"fingerprint": "12ab", "domain": "cars"})
    found = read_checkpoint(tmp_path / "own.bin")
    assert (found.kind, found.attributes) == ("own", {"fingerprint": "12ab", "domain": "cars"})
    assert_same(found.tensors, state)
    save_file(state, tmp_path / "own.bin", metadata={"generator": "12ab"})
    with pytest.raises(UnknownFormatError, match="no generator that this project wrote"):
        read_checkpoint(tmp_path / "own.bin")


@pytest.mark.parametrize("zipped", [True, False])
def test_views_and_types(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = rosinality_state() | {
        "view": base[3:15].view(3, 4).T,
        "same": base[20:],
        "empty": torch.empty(0, 3),
        "int": torch.tensor([1 << 40]),
        "half": values(3).bfloat16(),
        "bool": torch.tensor([True, False]),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "parameter": torch.nn.Parameter(values(2)),
    }
    found = read(saved({"g_ema": state}, zipped=zipped), tmp_path)
    assert_same(found.tensors, state)
    assert not any(tensor.requires_grad for tensor in found.tensors.values())


# Files that are something else.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"g_ema": {"synthesis.input.freqs": values(2)}}, "StyleGAN3"),
        ({"synthesis.L0_36_512.weight": values(2)}, "StyleGAN3"),
        ({"generator_smooth": {"lod": values(1), "layer0.weight": values(1)}}, "PGGAN"),
        ({"d": {"final_linear.0.weight": values(2)}}, "discriminator"),
        ({"discriminator": {"input0.weight": values(2)}}, "discriminator"),
        ({"final_linear.0.weight": values(2)}, "discriminator"),
    ],
)
def test_other_networks_are_refused_by_name(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedNetworkError, match=said):
        read(saved(content), tmp_path)


@pytest.mark.usefixtures("nvlabs_modules")
def test_other_networks_of_nvlabs_are_refused_by_name(tmp_path: Path) -> None:
    fourier = Published("SynthesisInput", {"freqs": values(2, 2)})
    third = Published("Generator", {"synthesis": Published("SynthesisNetwork", {"input": fourier})})
    with pytest.raises(UnsupportedNetworkError, match="StyleGAN3"):
        read(pickle.dumps({"G_ema": third}), tmp_path)
    discriminator = Published("Discriminator", {"b4": Published("Epilogue", {"out": dense(2, 1)})})
    for content in ({"D": discriminator}, discriminator):
        with pytest.raises(UnsupportedNetworkError, match="discriminator"):
            read(pickle.dumps(content), tmp_path)
    with pytest.raises(UnknownFormatError, match="G_ema"):
        read(pickle.dumps({"weights": 3}), tmp_path)
    with pytest.raises(UnknownFormatError, match="no generator that is known"):
        read(pickle.dumps(Published("Painter", {})), tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a text",
        b"\x89PNG\r\n\x1a\n" + bytes(30),
        saved({"weights": 3}),
        saved([1, 2]),
        saved({"some.weight": values(2)}),
        saved({"g": rosinality_state()}),
    ],
)
def test_unknown_content(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError, match=r"file\.bin "):
        read(data, tmp_path)


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe"):
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            read_checkpoint(path)


def test_an_archive_of_other_things(tmp_path: Path) -> None:
    for names in (["a.txt"], ["archive/data.pkl", "archive/constants.pkl"]):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        with pytest.raises(UnknownFormatError, match="zip archive"):
            read(out.getvalue(), tmp_path)


# Hostile files, assembled by hand.


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


PLACES: dict[str, Callable[[object], bytes]] = {
    "pickle": assembled,
    "in G_ema": lambda value: assembled({"G_ema": value}),
    "in a state": lambda value: assembled({"G_ema": persistent({"_buffers": {"x": value}})}),
    "in a storage": lambda value: assembled(
        {"G_ema": Call(Global("torch.storage", "_load_from_bytes"), (legacy(value),))}
    ),
    "in a storage's head": lambda value: assembled(
        Call(Global("torch.storage", "_load_from_bytes"), (legacy(0, magic=value),))
    ),
    "legacy": legacy,
    "zip": zipped,
    "in a zip's arguments": lambda value: zipped({"args": Build(Call(Global("argparse", "Namespace")), {"x": value})}),
}
HOSTILE: dict[str, tuple[object, ...]] = {  # what is named, and arguments that write the file {} where that is easy
    "os.system": ("touch {}",),
    "posix.system": ("touch {}",),
    "os.path.os.system": ("touch {}",),
    "builtins.eval": ("open({!r}, 'w').close()",),
    "builtins.exec": ("open({!r}, 'w').close()",),
    "io.open": ("{}", "w"),
    "subprocess.check_output": (["touch", "{}"],),
    "numpy.testing._private.utils.runstring": ("open({!r}, 'w').close()", {}),
    "torch.utils.collect_env.run": ("touch {}",),
}
GADGETS = [
    "__builtin__.eval",
    "functools.partial",
    "operator.attrgetter",
    "builtins.getattr",
    "builtins.__import__",
    "copyreg._reconstructor",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.serialization.load",
    "torch._utils._import_dotted_name",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._tensor._rebuild_from_type_v2",
    "torch.storage.UntypedStorage",
    "torch.storage._load_from_bytes.__globals__",
    "collections.OrderedDict.__class__",
    "numpy.load",
    "numpy.memmap",
    "numpy.f2py.diagnose.run_command",
    "numpy.f2py.crackfortran.myeval",
    "numpy.core.multiarray.fromfile",
    "torch_utils.persistence._src_to_module",
    "dnnlib.util.open_url",
    "dnnlib.EasyDict",
    "pickle.loads",
]


def named(full: str) -> Global:
    module, _, name = full.rpartition(".")
    if full == "os.path.os.system":
        module, name = "os.path", "os.system"
    return Global(module, name)


def filled(arguments: tuple[object, ...], marker: Path) -> tuple[object, ...]:
    def fill(value: Any) -> object:
        if isinstance(value, list):
            return [fill(v) for v in value]
        return value.format(str(marker)) if isinstance(value, str) else value

    return tuple(fill(value) for value in arguments)


@pytest.mark.parametrize("full", HOSTILE)
def test_payloads_work_where_pickles_are_run(full: str, tmp_path: Path) -> None:
    """Or refusing them would show nothing."""
    marker = tmp_path / "ran"
    result = pickle.loads(assembled(Call(named(full), filled(HOSTILE[full], marker))))
    if hasattr(result, "close"):
        result.close()
    assert marker.exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("full", [*HOSTILE, *GADGETS])
def test_names_outside_the_table_are_refused(full: str, place: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for opcode in (b"R", b"\x81"):
        payload = Call(named(full), filled(HOSTILE.get(full, ("{}",)), marker), opcode)
        with pytest.raises(UnsafePickleError) as refused:
            read(PLACES[place](payload), tmp_path)
        assert f"file.bin names {full}, which" in str(refused.value)
        assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_the_table_is_what_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(pickle_records.COMMON, ("os", "system"), os.system)
    marker = tmp_path / "ran"
    with pytest.raises(CheckpointError):
        read(assembled(Call(Global("os", "system"), (f"touch {marker}",))), tmp_path)
    assert marker.exists()


def test_nothing_of_the_table_is_foreign() -> None:
    """Every function of the table is of the reader itself, or makes an empty dictionary or a record."""
    table = {**pickle_records.TORCH, **checkpoints._nvlabs_table(pickle_records.Budget())}
    for function in table.values():
        plain = getattr(function, "func", function)
        own = getattr(plain, "__module__", "") in {"export.checkpoints.reader", "export.checkpoints.pickle_records"}
        assert function is None or own or plain == dict[object, object]


def test_dotted_names_are_not_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(UnsafePickleError, match=r"torch\._utils\._rebuild_tensor_v2"):
        read(assembled(Global("torch", "_utils._rebuild_tensor_v2")), tmp_path)


@pytest.mark.parametrize("place", ["pickle", "legacy", "zip"])
@pytest.mark.parametrize(
    "target",
    [
        Global("torch._utils", "_rebuild_tensor_v2"),
        Global("collections", "OrderedDict"),
        view(0, 0, (), ()),
        [1],
        "text",
        3,
        None,
        (1,),
    ],
)
def test_states_are_set_on_nothing(target: object, place: str, tmp_path: Path) -> None:
    before = {name: getattr(pickle_records, name) for name in ("_rebuild_tensor", "TensorRecord", "ObjectRecord")}
    codes = (pickle_records._rebuild_tensor.__code__, pickle_records._rebuild_tensor.__defaults__)
    for state in ({"__class__": 1, "tensor": 2}, (None, {"__code__": 1, "__defaults__": ()})):
        with pytest.raises(UnsafePickleError, match="sets the attributes"):
            read(PLACES[place](Build(target, state)), tmp_path)
    assert before == {name: getattr(pickle_records, name) for name in before}
    assert codes == (pickle_records._rebuild_tensor.__code__, pickle_records._rebuild_tensor.__defaults__)


def test_states_of_records_stay_data(tmp_path: Path) -> None:
    trick = {"__class__": "x", "__setstate__": "y", "__dict__": {"state": 1}, "__reduce__": "z"}
    namespace = Build(Call(Global("argparse", "Namespace"), (), b"\x81"), trick)
    tensor = view(storage(1), 0, (1,), (1,))
    found = read(zipped({**generator(tensor), "args": namespace}, {"0": bytes(4)}), tmp_path)
    assert found.attributes == {"args": trick}
    easy = Build(Call(Global("dnnlib.util", "EasyDict"), (), b"\x81"), trick)
    nested = Call(Global("torch.storage", "_load_from_bytes"), (legacy(old_storage(1), {"0": bytes(4)}),))
    found = read(assembled({"G_ema": network(view(nested, 0, (1,), (1,)), {"easy": easy, "tensor": 1})}), tmp_path)
    assert found.attributes["easy"] == {}
    assert found.attributes["tensor"] == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"(X\1\0\0\0xios\nsystem\n", "INST"),
        (b"(cos\nsystem\nS'touch x'\no", "names os.system"),
        (b"(S'touch x'\no", "instruction STRING"),
        (b"\x82\x01", "EXT1"),
        (b"ctorch\\h\nfloat32\n", r"names torch.*h\.float32"),
        (b"ctorch\nfloat\\x33\x32\n", "names torch"),
        (b"Pfile\n", "PERSID"),
        (b"K\x01Q", "outside"),
        (b"]2", "DUP"),
        (emit(Call("text", ("x",))), "not in the table"),
        (emit(Call(view(0, 0, (), ()), ())), "not in the table"),
        (emit(Call(Global("numpy", "ndarray"), ((1 << 40,),))), "not in the table"),
        (emit(Call(Global("numpy", "dtype"), ("O8", False, True))), "type O8"),
        (emit(Call(Global("numpy", "dtype"), ([("a", "O")],))), "of several"),
    ],
)
def test_other_instructions_are_refused(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        read(b"\x80\x02" + data + b".", tmp_path)


def test_tensorflow_is_named(tmp_path: Path) -> None:
    for name in (Global("dnnlib.tflib.network", "Network"), Global("tfutil", "Network")):
        network = Build(Call(name, (), b"\x81"), {"version": 4})
        with pytest.raises(UnsupportedNetworkError, match=r"TensorFlow.*convert them to PyTorch"):
            read(assembled((network, network, network)), tmp_path)


# Files that declare what they do not have.


TENSORS: dict[str, tuple[object, object, object, object]] = {
    "expanded": (1, 0, (1 << 27,), (0,)),
    "expanded within": (4, 0, (2, 2), (0, 1)),
    "large": (1, 0, (1 << 40,), (1,)),
    "overflowing": (1, 0, (1 << 62, 4), (1, 1)),
    "overflowing and empty": (1, 0, (0, 1 << 28, 1 << 28, 1 << 28), (1, 1, 1, 1)),
    "beyond": (4, 2, (3,), (1,)),
    "striding beyond": (4, 0, (2,), (4,)),
    "overlapping": (3, 0, (2, 2), (1, 1)),
    "offset": (4, 1 << 70, (1,), (1,)),
    "backwards": (4, 3, (2,), (-1,)),
    "negative": (4, 0, (-1,), (1,)),
    "before": (4, -1, (1,), (1,)),
    "strides": (4, 0, (2, 2), (1,)),
    "fraction": (4, 0, (2.0,), (1,)),
    "boolean": (4, 0, (True,), (1,)),
    "list": (4, 0, [2], [1]),
    "dimensions": (4, 0, (1,) * 9, (1,) * 9),
    "storage": (1 << 50, 0, (1 << 50,), (1,)),
    "storage alone": (1 << 50, 0, (1,), (1,)),
    "no storage": (None, 0, (1,), (1,)),
    "negative storage": (-1, 0, (1,), (1,)),
}


SAID = {
    "expanded": "reaches beyond",
    "expanded within": "reaches beyond",
    "overlapping": "reaches beyond",
    "beyond": "reaches beyond",
    "striding beyond": "reaches beyond",
    "offset": "reaches beyond",
    "large": "larger than any generator's",
    "overflowing and empty": "larger than any generator's",
    "backwards": "a shape that is none",
    "negative": "a shape that is none",
    "fraction": "a shape that is none",
    "boolean": "a shape that is none",
    "before": "contradicts itself",
    "strides": "contradicts itself",
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_fit_their_storages(case: str, tmp_path: Path) -> None:
    count, *rest = TENSORS[case]
    content = bytes(4 * count) if isinstance(count, int) and 0 < count < 99 else b""
    nested = Call(Global("torch.storage", "_load_from_bytes"), (legacy(old_storage(count), {"0": content}),))
    files = [
        zipped(generator(view(storage(count), *rest)), {"0": content}),
        legacy(generator(view(old_storage(count), *rest)), {"0": content}),
        assembled({"G_ema": network(view(nested, *rest))}),
    ]
    for data in files:
        with in_little_memory(), pytest.raises((DamagedError, TooLargeError), match=SAID.get(case)):
            read(data, tmp_path)


def test_the_assembled_files_are_read_when_they_are_honest(tmp_path: Path) -> None:
    """Or refusing the others would show nothing."""
    content = np.arange(4, dtype=np.float32).tobytes()
    expected = torch.tensor([[1.0, 3.0]])
    nested = Call(Global("torch.storage", "_load_from_bytes"), (legacy(old_storage(4), {"0": content}),))
    pickled = assembled({"G_ema": network(view(nested, 1, (1, 2), (4, 2)))})
    assert torch.equal(read(pickled, tmp_path).tensors["synthesis.b4.const"], expected)
    for data in (
        zipped(generator(view(storage(4), 1, (1, 2), (4, 2))), {"0": content}),
        legacy(generator(view(old_storage(4), 1, (1, 2), (4, 2))), {"0": content}),
    ):
        assert torch.equal(read(data, tmp_path).tensors["input.input"], expected)


def test_storages_are_what_they_say(tmp_path: Path) -> None:
    tensor = view(storage(4), 0, (4,), (1,))
    twice = {**generator(tensor), "x": view(storage(2), 0, (2,), (1,))}
    half = {**generator(tensor), "x": view(storage(4, kind=Global("torch", "HalfStorage")), 0, (2,), (1,))}
    for value, content in ((generator(tensor), 12), (generator(tensor), 20), (twice, 16), (half, 16)):
        with pytest.raises(DamagedError):
            read(zipped(value, {"0": bytes(content)}), tmp_path)
    with pytest.raises(DamagedError):
        read(zipped(generator(tensor)), tmp_path)
    with pytest.raises(DamagedError, match="lacks the values"):
        read(legacy(generator(view(old_storage(4), 0, (4,), (1,)))), tmp_path)
    with pytest.raises(DamagedError, match=r"as torch\.save does not"):
        read(zipped(generator(view(Persistent(("module", 0, 0, 0, 0)), 0, (4,), (1,)))), tmp_path)

    with pytest.raises(DamagedError, match="cut short"):
        read(legacy(generator(view(old_storage(4), 0, (4,), (1,))), {"0": bytes(20)}), tmp_path)


@pytest.mark.parametrize("key", [1 << 70, (1, 2), None, 1.5])
def test_keys_are_text_or_small_numbers(key: object, tmp_path: Path) -> None:
    for value in ({key: 1}, Call(Global("builtins", "set"), ([key],))):
        with pytest.raises(DamagedError, match="dictionary key or member of a set"):
            read(assembled(value), tmp_path)


def test_streams_do_not_nest_twice(tmp_path: Path) -> None:
    inner = Call(Global("torch.storage", "_load_from_bytes"), (legacy(old_storage(1), {"0": bytes(4)}),))
    with pytest.raises(UnsafePickleError, match="_load_from_bytes"):
        read(assembled(Call(Global("torch.storage", "_load_from_bytes"), (legacy(inner),))), tmp_path)
    with pytest.raises(UnsafePickleError, match="_load_from_bytes"):
        read(legacy(inner), tmp_path)


def test_other_versions_of_persistence_are_refused(tmp_path: Path) -> None:
    meta = {"type": "class", "version": 7, "class_name": "Generator", "state": {}}
    with pytest.raises(UnknownFormatError, match="version 6"):
        read(assembled(Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))), tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x8e" + struct.pack("<Q", 1 << 60) + b"x",
        b"\x8e" + struct.pack("<Q", 1 << 33) + b"x",
        b"\x96" + struct.pack("<Q", 1 << 33) + b"x",
        b"\x8d" + struct.pack("<Q", 1 << 33) + b"x",
        b"\x95" + struct.pack("<Q", 1 << 60),
        b"B\xff\xff\xff\xff",
        b"Nr\xff\xff\xff\x7f0",
        b"]" * 3000 + b"a" * 2999,
        b"(" * 3000,
        b"}" * 10 + b"}s",
        emit(Build(Call(Global("numpy._core.multiarray", "_reconstruct"), (0, 0, 0)), (1, (1 << 40,), 0, False, b""))),
    ],
)
def test_lengths_are_not_believed(data: bytes, tmp_path: Path) -> None:
    with in_little_memory(), pytest.raises(CheckpointError):
        read(b"\x80\x04" + data + b".", tmp_path)


def nest(levels: int, put: Callable[[object], object]) -> object:
    value: object = 0
    for _ in range(levels):
        value = put(value)
    return value


def test_nesting_is_bounded(tmp_path: Path) -> None:
    tensor = view(storage(1), 0, (1,), (1,))
    for put in (lambda v: [v], lambda v: {"x": v}, lambda v: (v,)):
        data = zipped({**generator(tensor), "args": nest(200, put)}, {"0": bytes(4)})
        with pytest.raises(TooLargeError, match="deeper than 32"):
            read(data, tmp_path)
    modules = nest(60, lambda v: persistent({"_modules": {"x": v or None}}))
    with pytest.raises(TooLargeError, match="deeper than 32"):
        read(assembled(modules), tmp_path)


def test_what_is_shared_or_holds_itself_is_bounded(tmp_path: Path) -> None:
    laughs = b"]q\x00" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(30))
    for value in (Raw(b"](" + laughs + b"e"), Raw(b"]q\x00h\x00a"), Raw(b"}q\x00X\x01\x00\x00\x00xh\x00s")):
        data = zipped({**generator(view(storage(1), 0, (1,), (1,))), "args": value}, {"0": bytes(4)})
        with pytest.raises(TooLargeError):
            read(data, tmp_path)


@pytest.mark.parametrize("what", pickle_records.LIMITS)
def test_limits(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = saved(rosinality_file())
    read(data, tmp_path)
    monkeypatch.setitem(pickle_records.LIMITS, what, 10)
    with pytest.raises(TooLargeError):
        read(data, tmp_path)


def test_elements_are_counted_in_storages_and_in_views(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(pickle_records.LIMITS, "elements", 22)
    one, all_ = view(storage(20), 0, (1,), (1,)), view(storage(20), 0, (20,), (1,))
    read(zipped(generator(one), {"0": bytes(80)}), tmp_path)
    with pytest.raises(TooLargeError, match="22 elements"):
        read(zipped(generator(all_), {"0": bytes(80)}), tmp_path)
    monkeypatch.setitem(pickle_records.LIMITS, "elements", 21)
    with pytest.raises(TooLargeError, match="21 elements"):
        read(zipped(generator(one), {"0": bytes(80)}), tmp_path)
    monkeypatch.setitem(pickle_records.LIMITS, "elements", 19)
    with pytest.raises(TooLargeError):
        read(zipped(generator(one), {"0": bytes(80)}), tmp_path)


def test_archives_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = {"0": bytes(1 << 22)}
    honest = generator(view(storage(1 << 20), 0, (1,), (1,)))
    read(zipped(honest, content), tmp_path)
    with pytest.raises(DamagedError, match="does not write"):
        read(zipped(honest, content, zipfile.ZIP_DEFLATED), tmp_path)
    small = zipped(generator(view(storage(1), 0, (1,), (1,))), {"0": bytes(4)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DamagedError, match="does not write"):
        read(small, tmp_path)
    monkeypatch.setattr(checkpoints, "MAX_PICKLE", 10)
    with pytest.raises(TooLargeError):
        read(zipped(honest, content), tmp_path)
    monkeypatch.setattr(checkpoints, "MAX_DIRECTORY", 10)
    with pytest.raises(TooLargeError, match="entries"):
        read(zipped(honest, content), tmp_path)


# Damage.


@pytest.fixture
def files(nvlabs_modules: Any, tmp_path: Path) -> dict[str, bytes]:
    network = {"G_ema": nvlabs_generator(nvlabs_modules.EasyDict)}
    save_file({"x": values(3, 3)}, tmp_path / "own", metadata={"fingerprint": "12ab"})
    return {
        "nvlabs 3": pickle.dumps(network, 3),
        "nvlabs 4": pickle.dumps(network, 4),
        "rosinality": saved(rosinality_file()),
        "rosinality legacy": saved(rosinality_file(), zipped=False),
        "genforce": saved(genforce_file()),
        "own": (tmp_path / "own").read_bytes(),
    }


def test_truncation(files: dict[str, bytes], tmp_path: Path) -> None:
    for data in files.values():
        read(data, tmp_path)
        for part in range(20):
            with pytest.raises(CheckpointError) as refused:
                read(data[: len(data) * part // 20], tmp_path)
            assert "\n" not in str(refused.value)
        with pytest.raises(CheckpointError):
            read(data[:-1], tmp_path)


def test_flipped_bytes(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dice, before = random.Random(0), {*tmp_path.iterdir(), tmp_path / "file.bin"}
    outcomes: list[type] = []
    said: list[str] = []
    for data in files.values():
        for _ in range(200):
            damaged = bytearray(data)
            for _ in range(dice.choice([1, 1, 4])):
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
            try:
                found = read(bytes(damaged), tmp_path)
            except CheckpointError as error:
                outcomes.append(type(error))
                said.append(str(error))
            else:
                outcomes.append(Checkpoint)
                assert all(isinstance(tensor, torch.Tensor) for tensor in found.tensors.values())
    assert {Checkpoint, DamagedError, UnsafePickleError, UnknownFormatError} <= set(outcomes)
    assert CheckpointError not in outcomes  # each says what is wrong
    assert all(sentence.isprintable() for sentence in said)
    assert set(tmp_path.iterdir()) == before
