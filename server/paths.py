"""Where built things live."""

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
