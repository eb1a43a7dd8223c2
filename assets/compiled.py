"""Compiled functions, whose code is kept where nobody else can write it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import torch

from assets.paths import build_dir

P = ParamSpec("P")
R = TypeVar("R")
VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"


def compile_function(function: Callable[P, R], *, dynamic: bool | None = None) -> Callable[P, R]:
    """``torch.compile``, with its code kept under ``$TORCHINDUCTOR_CACHE_DIR``, or else in the build folder.

    PyTorch runs what it finds there. Its own default is a folder of a known name in /tmp, which anyone may make first,
    and which is gone after a restart.
    """
    if not os.environ.get(VARIABLE):
        os.environ[VARIABLE] = str(code_folder())
    return torch.compile(function, dynamic=dynamic)


def code_folder() -> Path:
    """A folder that only this user can write: ``compiled`` in the build folder, or one that ends with the process."""
    folder = build_dir() / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # fails where it is another user's
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        found = tempfile.mkdtemp(prefix="compiled-")
        atexit.register(shutil.rmtree, found, ignore_errors=True)
        return Path(found)
