"""Hostile checkpoints: nothing in them ever runs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.checkpoints import child, containers, records
from export.checkpoints.errors import CheckpointError, UnknownFormatError, UnsafePickleError, UnsupportedNetworkError
from tests.export.pickles import (
    Build,
    Call,
    Global,
    assembled,
    emit,
    generator,
    legacy,
    loaded,
    network,
    old_storage,
    persistent,
    storage,
    view,
    zipped,
)
from tests.export.published import read, read_in_child

PLACES: dict[str, Callable[[object], bytes]] = {
    "pickle": assembled,
    "in G_ema": lambda value: assembled({"G_ema": value}),
    "in a state": lambda value: assembled({"G_ema": persistent({"_buffers": {"x": value}})}),
    "in a storage": lambda value: assembled({"G_ema": loaded(legacy(value))}),
    "in a storage's head": lambda value: assembled(loaded(legacy(0, magic=value))),
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
        assert f"cannot read `file.bin`: it names {full}, which" in str(refused.value)
        assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_the_table_is_what_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(records.COMMON, ("os", "system"), os.system)
    marker = tmp_path / "ran"
    with pytest.raises(CheckpointError):
        read(assembled(Call(Global("os", "system"), (f"touch {marker}",))), tmp_path)
    assert marker.exists()


def test_nothing_of_the_table_is_foreign() -> None:
    """Every entry of the table is the reader's own, and its types set no attributes of themselves."""
    table = {**records.TORCH, ("torch.storage", "_load_from_bytes"): containers._nested_storage}
    for entry in table.values():
        assert entry is None or entry.__module__ in {"export.checkpoints.containers", "export.checkpoints.records"}
    types = {entry for entry in table.values() if isinstance(entry, type)}
    assert types == {records.Mapped, records.Namespace, records.Dropped}
    assert all("__setstate__" in kind.__dict__ for kind in types)


def test_dotted_names_are_not_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(UnsafePickleError, match=r"torch\._utils\._rebuild_tensor_v2"):
        read(assembled(Global("torch", "_utils._rebuild_tensor_v2")), tmp_path)


@pytest.mark.parametrize("place", ["pickle", "legacy", "zip"])
@pytest.mark.parametrize(
    "target",
    [
        Global("torch._utils", "_rebuild_tensor_v2"),
        Global("collections", "OrderedDict"),
        Global("argparse", "Namespace"),
        Global("datetime", "date"),
        view(0, 0, (), ()),
        [1],
        "text",
        3,
        None,
        (1,),
    ],
)
def test_states_are_set_on_nothing(target: object, place: str, tmp_path: Path) -> None:
    before = {name: getattr(records, name) for name in ("_view", "View", "Module", "Mapped", "Namespace", "Dropped")}
    codes = (records._view.__code__, records._view.__defaults__)
    for state in ({"__class__": 1, "tensor": 2}, (None, {"__code__": 1, "__defaults__": ()})):
        with pytest.raises(UnsafePickleError, match="sets the attributes"):
            read(PLACES[place](Build(target, state)), tmp_path)
    assert before == {name: getattr(records, name) for name in before}
    assert codes == (records._view.__code__, records._view.__defaults__)


def test_states_of_records_stay_data(tmp_path: Path) -> None:
    trick = {"__class__": "x", "__setstate__": "y", "__dict__": {"state": 1}, "__reduce__": "z"}
    namespace = Build(Call(Global("argparse", "Namespace"), (), b"\x81"), trick)
    tensor = view(storage(1), 0, (1,), (1,))
    found = read(zipped({**generator(tensor), "args": namespace}, {"0": bytes(4)}), tmp_path)
    assert found.attributes == {"args": trick}
    easy = Build(Call(Global("dnnlib.util", "EasyDict"), (), b"\x81"), trick)
    nested = loaded(legacy(old_storage(1), {"0": bytes(4)}))
    found = read(assembled({"G_ema": network(view(nested, 0, (1,), (1,)), {"easy": easy, "tensor": 1})}), tmp_path)
    assert found.attributes["easy"] == {}
    assert found.attributes["tensor"] == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"(X\1\0\0\0xios\nsystem\n", "names os.system"),
        (b"(cos\nsystem\nS'touch x'\no", "names os.system"),
        (b"(S'touch x'\no", "no generator's checkpoint calls"),
        (b"\x82\x01", "not a whole pickle"),
        (b"ctorch\\h\nfloat32\n", r"names torch.*h\.float32"),
        (b"ctorch\nfloat\\x33\x32\n", "names torch"),
        (b"Pfile\n", "outside"),
        (b"K\x01Q", "outside"),
        (b"]2", "without NVlabs' G_ema"),
        (emit(Call("text", ("x",))), "no generator's checkpoint calls"),
        (emit(Call(view(0, 0, (), ()), ())), "no generator's checkpoint calls"),
        (emit(Call(Global("numpy", "ndarray"), ((1 << 40,),))), "no generator's checkpoint calls"),
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


SEALED = """
import sys
from export.checkpoints import child
with child.sealed():
    {}
"""


@pytest.mark.parametrize(
    "statement",
    [
        "open(sys.argv[1], 'w')",
        "import os; os.system('touch ' + sys.argv[1])",
        "eval('1')",
        "import socket; socket.socket()",
        "sys.modules['posix'].system('touch ' + sys.argv[1])",
        "sys.modules['posix'].fork()",
    ],
)
def test_the_reading_process_is_ended_before_anything_runs(statement: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    done = subprocess.run(
        [sys.executable, "-c", SEALED.format(statement), str(marker)], capture_output=True, text=True, check=False
    )
    assert done.returncode == child.SEALED
    assert done.stderr.startswith("sealed: ")
    assert not marker.exists()


@pytest.mark.parametrize("full", ["posix.system", "builtins.exec"])
def test_the_reading_process_refuses_the_same(full: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(UnsafePickleError, match=rf"^cannot read `file\.bin`: it names {full}, which"):
        read_in_child(assembled(Call(named(full), filled(HOSTILE[full], marker))), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_a_module_beside_the_file_is_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("export", "numpy", "pickle", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownFormatError):
        read_in_child(pickle.dumps({"weights": 3}), tmp_path)
    assert not (tmp_path / "ran").exists()
