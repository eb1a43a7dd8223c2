"""Checkpoints that declare what they do not have: lengths, shapes, nesting, and the limits of the reader."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export.checkpoints import containers, reader, records
from export.checkpoints.errors import (
    CheckpointError,
    DamagedError,
    TooLargeError,
    UnknownFormatError,
    UnsafePickleError,
)
from tests.export.pickles import (
    Build,
    Call,
    Global,
    Persistent,
    Raw,
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
from tests.export.published import in_little_memory, read, read_in_child, rosinality_file, saved

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
    "expanded": "larger than its storage",
    "expanded within": "larger than its storage",
    "overlapping": "larger than its storage",
    "beyond": "larger than its storage",
    "striding beyond": "larger than its storage",
    "offset": "larger than its storage",
    "large": "larger than any generator's",
    "overflowing and empty": "larger than any generator's",
    "backwards": "an invalid shape",
    "negative": "an invalid shape",
    "fraction": "an invalid shape",
    "boolean": "an invalid shape",
    "before": "an inconsistent tensor",
    "strides": "an inconsistent tensor",
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_fit_their_storages(case: str, tmp_path: Path) -> None:
    count, *rest = TENSORS[case]
    content = bytes(4 * count) if isinstance(count, int) and 0 < count < 99 else b""
    nested = loaded(legacy(old_storage(count), {"0": content}))
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
    nested = loaded(legacy(old_storage(4), {"0": content}))
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
    tensor = view(storage(1), 0, (1,), (1,))
    with pytest.raises(DamagedError, match="dictionary key"):
        read(zipped({**generator(tensor), "args": {key: 1}}, {"0": bytes(4)}), tmp_path)


def test_streams_do_not_nest_twice(tmp_path: Path) -> None:
    inner = loaded(legacy(old_storage(1), {"0": bytes(4)}))
    with pytest.raises(UnsafePickleError, match="_load_from_bytes"):
        read(assembled(loaded(legacy(inner))), tmp_path)
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
        read_in_child(b"\x80\x04" + data + b".", tmp_path)


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


@pytest.mark.parametrize("what", records.LIMITS)
def test_limits(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = saved(rosinality_file())
    read(data, tmp_path)
    monkeypatch.setitem(records.LIMITS, what, 10)
    with pytest.raises(TooLargeError):
        read(data, tmp_path)


def test_elements_are_counted_in_storages_and_in_views(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(records.LIMITS, "elements", 22)
    one, all_ = view(storage(20), 0, (1,), (1,)), view(storage(20), 0, (20,), (1,))
    read(zipped(generator(one), {"0": bytes(80)}), tmp_path)
    with pytest.raises(TooLargeError, match="22 elements"):
        read(zipped(generator(all_), {"0": bytes(80)}), tmp_path)
    monkeypatch.setitem(records.LIMITS, "elements", 21)
    with pytest.raises(TooLargeError, match="21 elements"):
        read(zipped(generator(one), {"0": bytes(80)}), tmp_path)
    monkeypatch.setitem(records.LIMITS, "elements", 19)
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
    monkeypatch.setattr(containers, "MAX_PICKLE", 10)
    with pytest.raises(TooLargeError):
        read(zipped(honest, content), tmp_path)
    monkeypatch.setattr(containers, "MAX_DIRECTORY", 10)
    with pytest.raises(TooLargeError, match="entries"):
        read(zipped(honest, content), tmp_path)


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reader, "SECONDS", 1)
    slow = b"\x80\x04})" + b"2\x86" * 50 + b"Ns."  # the hash of a tuple of 2 ** 50
    with pytest.raises(TooLargeError, match="takes more than 1 s to read"):
        read_in_child(slow, tmp_path)


def test_recursion_ends_another_process_than_this(tmp_path: Path) -> None:
    deep = b"\x80\x04})" + b"\x85" * 10_000_000 + b"Ns."
    with pytest.raises((DamagedError, TooLargeError)):
        read_in_child(deep, tmp_path)


def test_memory_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match="more memory than"):
        read_in_child(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"x.", tmp_path)
