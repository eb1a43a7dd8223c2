"""Where built things lie. Everything under the build folder can be deleted and is made anew."""

from __future__ import annotations

from pathlib import Path

from server.paths import build_dir, project_root

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


def pnorm_file(domain: str) -> Path:
    """The P-norm+ statistics of the generator's W."""
    return LEARNED / domain / "pnorm.safetensors"


def training_folder(domain: str, run: str) -> Path:
    """Checkpoints and history of a training run."""
    return BUILD / "training" / domain / run
