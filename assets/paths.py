"""Where files are: build products, which can be deleted and rebuilt, and what ships with the project."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The directory that holds pyproject.toml; the working directory where the package is installed without one."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def build_dir() -> Path:
    """The folder of built things: ``$UNALIGNED_BUILD`` if set, otherwise ``build`` in the project root. Absolute."""
    override = os.environ.get("UNALIGNED_BUILD")
    return Path(override).expanduser().absolute() if override else project_root() / "build"


ROOT = project_root()
BUILD = build_dir()
REPOSITORY = ROOT / "model_repository"
LEARNED = ROOT / "networks" / "weights"
DIRECTIONS = ROOT / "client" / "directions"


def generator_file(domain: str) -> Path:
    """The generator's weights, safetensors."""
    return BUILD / "weights" / domain / "generator.safetensors"


def samples_folder(domain: str) -> Path:
    """The cached generator samples that training reads."""
    return BUILD / "samples" / domain


def encoder_file(domain: str, cut: int) -> Path:
    """The trained encoder that ships with the project, fp16 safetensors."""
    return LEARNED / domain / f"encoder{cut}.safetensors"


def detail_file(domain: str, cut: int) -> Path:
    """The trained detail head that ships with the project, fp16 safetensors."""
    return LEARNED / domain / f"detail{cut}.safetensors"


def looks_file(domain: str, cut: int) -> Path:
    """The trained first and second look that ship with the project, fp16 safetensors."""
    return LEARNED / domain / f"looks{cut}.safetensors"


def faithful_looks_file(domain: str, cut: int) -> Path:
    """Two looks trained for the picture alone, whose codes are rendered and not edited, fp16 safetensors."""
    return LEARNED / domain / f"faithful_looks{cut}.safetensors"


def faithful_head_file(domain: str, cut: int) -> Path:
    """Their short head, fp16 safetensors."""
    return LEARNED / domain / f"faithful_head{cut}.safetensors"


def picture_head_file(domain: str, cut: int) -> Path:
    """The head that paints their codes clean, with an eye on the other code's render, fp16 safetensors."""
    return LEARNED / domain / f"picture_head{cut}.safetensors"


def coarse_look_file(domain: str, cut: int) -> Path:
    """The trained coarse look that ships with the project, fp16 safetensors."""
    return LEARNED / domain / f"coarse_look{cut}.safetensors"


def short_head_file(domain: str, cut: int) -> Path:
    """The trained short head that ships with the project, fp16 safetensors."""
    return LEARNED / domain / f"short_head{cut}.safetensors"


def pnorm_file(domain: str) -> Path:
    """The P-norm+ statistics of the generator's W."""
    return LEARNED / domain / "pnorm.safetensors"


def training_folder(domain: str, run: str) -> Path:
    """Checkpoints and history of a training run."""
    return BUILD / "training" / domain / run
