"""Checkpoints of other people: what is in them comes back bit-identical; other files are refused by name."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import sys
import zipfile
from collections import Counter, defaultdict, deque
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export.checkpoints.errors import CheckpointError, UnknownFormatError, UnsupportedNetworkError
from export.checkpoints.reader import read_checkpoint
from tests.export.published import (
    Published,
    assert_same,
    dense,
    genforce_file,
    nvlabs_generator,
    read,
    read_in_child,
    rosinality_file,
    rosinality_state,
    saved,
    values,
)


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
    with pytest.raises(UnknownFormatError, match="not of a generator of this project"):
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
    with pytest.raises(UnknownFormatError, match="of no known generator"):
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
    with pytest.raises(UnknownFormatError, match=r"cannot read `file\.bin`: it "):
        read(data, tmp_path)


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe"):
        with pytest.raises(CheckpointError, match="no checkpoint at `"):
            read_checkpoint(path)


def test_an_archive_of_other_things(tmp_path: Path) -> None:
    for names in (["a.txt"], ["archive/data.pkl", "archive/constants.pkl"]):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        with pytest.raises(UnknownFormatError, match="zip archive"):
            read(out.getvalue(), tmp_path)


def test_a_process_of_its_own_reads_the_same(nvlabs_modules: Any, tmp_path: Path) -> None:
    network = nvlabs_generator(nvlabs_modules.EasyDict)
    for data in (pickle.dumps({"G_ema": network}), saved(rosinality_file()), saved(genforce_file(), zipped=False)):
        here, there = read(data, tmp_path), read_in_child(data, tmp_path)
        assert (here.kind, here.attributes) == (there.kind, there.attributes)
        assert_same(there.tensors, here.tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_objects_beside_the_network_are_no_hindrance(zipped: bool, tmp_path: Path) -> None:
    args = argparse.Namespace(size=8, out=Path("runs/1"), pure=PurePosixPath("/data"), started=datetime(2020, 1, 2))
    losses: defaultdict[str, list[float]] = defaultdict(list, d=[0.5])
    beside = {"args": args, "losses": losses, "seen": Counter(a=3), "last": deque([1.0], maxlen=5), "kind": int}
    found = read(saved({**rosinality_file(), **beside}, zipped=zipped), tmp_path)
    assert found.kind == "rosinality"
    assert found.attributes["args"] == {"size": 8, "out": "runs/1", "pure": "/data"}
    assert (found.attributes["losses"], found.attributes["seen"]) == ({"d": [0.5]}, {"a": 3})


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_of_foreign_classes_beside_the_network_are_dropped(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = ModuleType("someones_config")
    kinds = [type("Config", (base,), {"__module__": foreign.__name__}) for base in (object, dict, list, set)]
    for number, kind in enumerate(kinds):
        kind.__qualname__ = kind.__name__ = f"Config{number}"
        setattr(foreign, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, foreign.__name__, foreign)
    plain, mapping, sequence, members = (kind() for kind in kinds)
    plain.rate, plain.inner = 0.1, [mapping]
    mapping["size"] = 8
    sequence.append(plain)
    members.add(1)
    beside = {"config": plain, "options": mapping, "list": sequence, "set": members, "class": kinds[0]}
    more = {"range": range(3), "frozen": frozenset({1}), "name": SimpleNamespace(a=1), "z": 1j, "cut": slice(3)}
    random = {"numpy": np.random.default_rng(0), "state": np.random.RandomState(1).get_state()}
    network = rosinality_file()
    data = saved({**network, **beside, **more, **random}, zipped=zipped)
    monkeypatch.delitem(sys.modules, foreign.__name__)
    found = read(data, tmp_path)
    assert found.kind == "rosinality"
    assert_same(found.tensors, read(saved(network, zipped=zipped), tmp_path).tensors)


@pytest.mark.usefixtures("nvlabs_modules")
def test_harmless_objects_in_nvlabs_files(tmp_path: Path) -> None:
    network = nvlabs_generator()
    options = {"outdir": Path("runs"), "metrics": defaultdict(dict), "started": datetime(2020, 1, 2)}
    assert_same(read(pickle.dumps({"G_ema": network, **options}), tmp_path).tensors, network.state_dict())
