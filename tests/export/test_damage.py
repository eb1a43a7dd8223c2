"""Damaged checkpoints: cut short, and with flipped bytes."""

from __future__ import annotations

import pickle
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from export.checkpoints.errors import CheckpointError, DamagedError, UnknownFormatError, UnsafePickleError
from export.checkpoints.reader import PublishedGenerator
from tests.export.published import genforce_file, nvlabs_generator, read, rosinality_file, saved, values


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Bound this process as the product bounds the one that unpickles: a flipped index may ask for 30 GB."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


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
                outcomes.append(PublishedGenerator)
                assert all(isinstance(tensor, torch.Tensor) for tensor in found.tensors.values())
    assert {PublishedGenerator, DamagedError, UnsafePickleError, UnknownFormatError} <= set(outcomes)
    assert CheckpointError not in outcomes  # each says what is wrong
    assert all(sentence.isprintable() for sentence in said)
    assert set(tmp_path.iterdir()) == before
