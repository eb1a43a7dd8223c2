"""Published weights of the perceptual networks; ST-LPIPS' are converted once to safetensors under ``build/weights``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor

from assets.paths import build_dir
from assets.wheels import extract
from networks.perceptual import LPIPS, STLPIPS, Variant, load_stlpips


class WeightsMissing(ValueError):
    """Weights that cannot be fetched are not on this machine."""


def stlpips_state(pth: Path, *, variant: Variant) -> dict[str, Tensor]:
    """The state of :class:`networks.perceptual.STLPIPS` from a published ``.pth`` file, loaded as data only.

    Raises:
        ValueError: the file holds other convolutions than the variant has.
    """
    published: dict[str, Tensor] = torch.load(pth, weights_only=True, map_location="cpu")
    convs = sorted((k for k in published if k.startswith("net.") and k.endswith(".weight")), key=_position)
    ours = [k for k in STLPIPS(variant).state_dict() if k.startswith("stages.") and k.endswith(".weight")]
    if len(convs) != len(ours):
        raise ValueError(f"{pth.name} holds {len(convs)} convolutions, and {variant} has {len(ours)}")
    state = {}
    for here, there in zip(ours, convs, strict=True):
        for kind in ("weight", "bias"):
            state[f"{here.removesuffix('weight')}{kind}"] = published[f"{there.removesuffix('weight')}{kind}"]
    for i in range(5):
        state[f"heads.{i}"] = published[f"lin{i}.model.1.weight"].flatten().contiguous()
    return state


def stlpips_file(variant: Variant) -> Path:
    """Where the converted weights are."""
    return build_dir() / "weights" / "stlpips" / f"{variant}.safetensors"


def stlpips(variant: Variant) -> STLPIPS:
    """ST-LPIPS with the weights of the wheel stlpips_pytorch (BSD-2), which are fetched and converted on first use."""
    target = stlpips_file(variant)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as scratch:
            pth = Path(scratch) / "published.pth"
            extract("stlpips_pytorch", f"stlpips_pytorch/weights/vST0.0/{variant}_shift_tolerant.pth", pth)
            partial = Path(scratch) / target.name
            save_file(stlpips_state(pth, variant=variant), partial)
            partial.replace(target)
    return load_stlpips(target, variant=variant)


def vgg16_file() -> Path:
    """Where PyTorch's hub keeps torchvision's VGG16, which cannot be fetched with a package."""
    return Path(torch.hub.get_dir()) / "checkpoints" / "vgg16-397923af.pth"


def lpips() -> LPIPS:
    """LPIPS (VGG, version 0.1): heads of the wheel lpips (BSD-2) on torchvision's VGG16, if this machine has it.

    Raises:
        WeightsMissing: it does not.
    """
    backbone = vgg16_file()
    if not backbone.exists():
        raise WeightsMissing(f"LPIPS needs torchvision's VGG16 at {backbone}; ST-LPIPS needs nothing more.")
    with TemporaryDirectory() as scratch:
        heads = extract("lpips", "lpips/weights/v0.1/vgg.pth", Path(scratch) / "heads.pth")
        return lpips_of(backbone, heads)


def lpips_of(backbone: Path, heads: Path) -> LPIPS:
    """LPIPS from the two published files, loaded as data only."""
    features: dict[str, Tensor] = torch.load(backbone, weights_only=True, map_location="cpu")
    linear: dict[str, Tensor] = torch.load(heads, weights_only=True, map_location="cpu")
    network = LPIPS()
    convs = sorted(
        (k for k in features if k.startswith("features.") and k.endswith(".weight")), key=lambda k: int(k.split(".")[1])
    )
    ours = [k for k in network.state_dict() if k.startswith("stages.") and k.endswith(".weight")]
    state = {}
    for here, there in zip(ours, convs, strict=True):
        for kind in ("weight", "bias"):
            state[f"{here.removesuffix('weight')}{kind}"] = features[f"{there.removesuffix('weight')}{kind}"]
    for i in range(5):
        state[f"heads.{i}"] = linear[f"lin{i}.model.1.weight"].flatten().contiguous()
    network.load_state_dict(state)
    return network


def _position(key: str) -> int:
    """Place of a layer in the backbone: the keys read ``net.slice2.5.weight``, counted through all slices."""
    return int(key.split(".")[2])
