"""Published ST-LPIPS weights, converted once to safetensors under ``build/weights/stlpips``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor

from networks.perceptual import STLPIPS, Variant, load_stlpips
from server.paths import build_dir
from server.wheels import extract


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
    """Where the converted weights lie."""
    return build_dir() / "weights" / "stlpips" / f"{variant}.safetensors"


def stlpips(variant: Variant) -> STLPIPS:
    """ST-LPIPS with the weights of the wheel stlpips_pytorch (BSD-2), which are fetched and converted if need be."""
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


def _position(key: str) -> int:
    """Place of a layer in the backbone: the keys read ``net.slice2.5.weight``, counted through all slices."""
    return int(key.split(".")[2])
