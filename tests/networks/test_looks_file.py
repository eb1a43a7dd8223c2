"""The files of the looks and the short head."""

from __future__ import annotations

import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from networks.looks import CoarseStyles, CodeLooks, TwoLooks
from networks.looks_file import (
    load_coarse_styles,
    load_looks,
    load_short_head,
    save_coarse_styles,
    save_looks,
    save_short_head,
)
from networks.short_head import ShortHead
from networks.weights_file import WeightsError

GENERATOR = "0123456789abcdef"
TURNED = torch.tensor([[[0.8, -0.3, 0.1], [0.3, 0.8, -0.05]]])


@pytest.fixture(scope="module")
def looks() -> TwoLooks:
    torch.manual_seed(1)
    made = TwoLooks().eval()
    made.w_mean.normal_()
    made.w_std.uniform_(0.5, 1.5)
    made.f_mean.normal_()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory, looks):
    torch.manual_seed(2)
    path = tmp_path_factory.mktemp("looks")
    save_short_head(ShortHead(), path / "head.safetensors", generator=GENERATOR)
    save_looks(looks, path / "looks.safetensors", generator=GENERATOR)
    save_coarse_styles(CoarseStyles.of(looks), path / "coarse.safetensors", generator=GENERATOR, training="none")
    return path


@torch.no_grad()
def test_the_looks_are_read_as_they_were_written_without_the_coarse_look(folder, looks):
    found = load_looks(folder / "looks.safetensors", generator=GENERATOR)
    assert type(found) is CodeLooks
    photo = torch.rand(1, 3, 256, 256) * 2 - 1
    for one, other in zip(found(photo, painted), looks(photo, painted), strict=True):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=5e-3)


def painted(f, w):
    return (f.mean() + w.mean()).expand(1, 3, 256, 256)


@torch.no_grad()
def test_the_coarse_look_is_read_as_it_was_written(folder, looks):
    found = load_coarse_styles(folder / "coarse.safetensors", generator=GENERATOR)
    photo = torch.rand(1, 3, 256, 256) * 2 - 1
    torch.testing.assert_close(found(photo, TURNED), looks.look_at_face(photo, TURNED), atol=5e-3, rtol=5e-3)
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())


@torch.no_grad()
def test_the_short_head_is_read_as_it_was_written(folder):
    torch.manual_seed(2)
    expected, found = ShortHead(), load_short_head(folder / "head.safetensors")
    x, late = torch.randn(1, 512, 64, 64), torch.randn(1, 7, 512)
    torch.testing.assert_close(found(x, late), expected(x, late), atol=5e-3, rtol=5e-3)


def test_files_can_be_read_by_everyone(folder):
    assert sorted(p.stem for p in folder.iterdir()) == ["coarse", "head", "looks"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("data", [None, b"", b"junk" * 9])
def test_a_missing_or_damaged_file(tmp_path, data):
    path = tmp_path / "it.safetensors"
    if data is not None:
        path.write_bytes(data)
    for load in (load_looks, load_coarse_styles, load_short_head):
        with pytest.raises(WeightsError, match="no trained network" if data is None else "not a safetensors file"):
            load(path)


def test_a_file_of_another_network(folder):
    with pytest.raises(WeightsError, match="expected a network of kind coarse_look, got short_head"):
        load_coarse_styles(folder / "head.safetensors")
    with pytest.raises(WeightsError, match="expected a network of kind looks, got coarse_look"):
        load_looks(folder / "coarse.safetensors")


def test_another_generator(folder):
    with pytest.raises(WeightsError, match=f"trained for generator {GENERATOR}, not ffff"):
        load_short_head(folder / "head.safetensors", generator="ffff")


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_other_tensors(folder, tmp_path, change):
    state = load_file(folder / "head.safetensors")
    match change:
        case "missing":
            del state["enter.bias"]
        case "unknown":
            state["other"] = torch.zeros(1)
        case "shape":
            state["enter.bias"] = torch.zeros(5)
    save_file(state, tmp_path / "it", metadata={"network": "short_head", "generator": GENERATOR})
    with pytest.raises(WeightsError, match="tensors"):
        load_short_head(tmp_path / "it")
