"""What training starts from: earlier weights, the statistics of the generator, and named directions."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from assets.paths import coarse_look_file, looks_file, short_head_file
from export.training.looks.draws import draw_styles
from networks.generator_file import Generator
from networks.looks import TwoLooks
from protocol.cuts import DEFAULT_CUT

PART = 15_000_000  # bytes of a file of weights
NONE = Path("none")
# Names in the first published weights, and ours.
_EARLIER = (
    (r"^again\.coarse\..*", ""),
    (r"^again\.", "second."),
    (r"\.stem\.", ".at64."),
    (r"\.a\.([01])\.", r".conv1.\1."),
    (r"\.b\.([01])\.", r".conv2.\1."),
    (r"^a\.", "conv1."),
    (r"^b\.", "conv2."),
    (r"\.map\.", ".read_f."),
    (r"\.small\.", ".at4."),
    (r"\.pool\.", ".pooled."),
    (r"^scale_in\.", "enter_scale."),
)


class StartError(ValueError):
    """Weights to start from do not fit."""


def start_files(domain: str) -> list[Path]:
    """The weights that ship, if all of them do: those of the looks, the coarse look and the short head."""
    files = [file(domain, DEFAULT_CUT) for file in (looks_file, coarse_look_file, short_head_file)]
    return files if all(path.exists() for path in files) else []


def start_states(given: Path | None, domain: str) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """The tensors of the looks and of the short head to start from; None to start from nothing.

    Args:
        given: what the user named: a folder, or ``none``; None for the weights that ship.
        domain: whose weights ship.
    """
    if given is not None:
        return None if given == NONE else (renamed(read_parts(given, "looks")), renamed(read_parts(given, "head")))
    if not (files := start_files(domain)):
        return None
    looks, coarse, head = (
        {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()} for path in files
    )
    coarse = {name.replace("look.", "coarse_look.", 1): value for name, value in coarse.items()}
    return coarse | looks, head


def read_parts(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of ``name-0.safetensors``, ``name-1.safetensors`` and so on, float32; empty without such a file."""
    state: dict[str, Tensor] = {}
    for path in sorted(folder.glob(f"{name}-*.safetensors")):
        state |= {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    return state


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Earlier names to ours; ours stay."""
    found = {}
    for name, value in state.items():
        ours = name
        for earlier, now in _EARLIER:
            ours = re.sub(earlier, now, ours)
        if ours:
            found[ours] = value
    return found


def start_from(network: nn.Module, state: dict[str, Tensor], *, new: tuple[str, ...] = ()) -> list[str]:
    """Fill a network; returns the names of parts that the weights do not have.

    Args:
        network: to fill.
        state: its tensors.
        new: beginnings of names that may be missing.

    Raises:
        StartError: other tensors are missing, unknown or of other shapes.
    """
    try:
        missing, unknown = network.load_state_dict(state, strict=False)
    except RuntimeError as exc:
        raise StartError(f"the weights to start from do not fit: {exc}") from exc
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if unknown or [name for name in missing if not name.startswith(new)]:
        raise StartError(f"the weights to start from lack {missing[:3]} and have unknown {unknown[:3]}")
    return missing


@torch.no_grad()
def measure_statistics(looks: TwoLooks, generator: Generator, rng: torch.Generator, *, batches: int = 16) -> None:
    """Set the statistics that normalise codes, from batches of 128 samples."""
    maps, styles = [], []
    for _ in range(batches):
        w = draw_styles(generator, 128, rng)
        maps.append(generator.synthesis.coarse(w[:, : looks.coarse], cut=looks.cut))
        styles.append(w[:, -1])
    f, w = torch.cat(maps), torch.cat(styles)
    looks.f_mean.copy_(f.mean((0, 2, 3)))
    looks.f_std.copy_(f.std((0, 2, 3)))
    looks.w_mean.copy_(w.mean(0))
    looks.w_std.copy_(w.std(0).clamp(min=float(w.std()) * 0.1))


def read_directions(folder: Path, styles: int) -> Tensor:
    """Named directions at strength 1: float32 [D, styles, 512], zero for styles that they leave alone."""
    steps = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            metadata, vector = dict(file.metadata() or {}), file.get_tensor("direction").float()
        first, last = (int(n) for n in metadata.get("layers", f"0-{styles - 1}").split("-"))
        number = torch.arange(styles)
        moved = ((number >= first) & (number <= last)).float()
        steps.append(moved[:, None] * vector * float(metadata.get("scale", 1)))
    return torch.stack(steps)


def write_parts(network: nn.Module, folder: Path, name: str, *, limit: int = PART) -> list[Path]:
    """Weights in half precision, in files of at most ``limit`` bytes, each whole or not at all.

    Returns:
        The files, ``name-0.safetensors`` and so on.
    """
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        kept = (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        if size + kept.nbytes > limit and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][key] = kept
        size += kept.nbytes
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, part in enumerate(parts):
        file = folder / f"{name}-{number}.safetensors"
        partial = file.with_suffix(".part")
        save_file(part, partial)
        partial.replace(file)
        files.append(file)
    return files
