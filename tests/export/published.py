"""Checkpoints as their publishers write them, and how tests read them."""

from __future__ import annotations

import argparse
import io
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch

from export.checkpoints import child
from export.checkpoints.errors import CheckpointError
from export.checkpoints.reader import PublishedGenerator, _is_safetensors, loaded, read_checkpoint

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


def read(data: bytes, folder: Path) -> PublishedGenerator:
    """As `read_checkpoint` does, in this process, which is quicker than one of its own."""
    path = folder / "file.bin"  # the name says nothing
    path.write_bytes(data)
    if _is_safetensors(path):
        return read_checkpoint(path)
    with path.open("rb") as file, NamedTemporaryFile() as out:
        try:
            child.write(child.read(file), out.file)
        except CheckpointError as error:
            raise type(error)(f"cannot read `{path.name}`: it {error}") from error
        out.flush()
        return loaded(Path(out.name))


def read_in_child(data: bytes, folder: Path) -> PublishedGenerator:
    path = folder / "file.bin"
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
