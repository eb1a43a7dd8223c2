"""Reads the checkpoint of a generator into plain tensors, and runs nothing in it.

The format is recognised by content. A pickle is read in a process of its own (`export.checkpoints.child`), which has
little memory and time, and can be ended. There it becomes inert records, by a closed table of names
(`export.checkpoints.unpickler`). `read_checkpoint` raises the errors in `export.checkpoints.errors`.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from export.checkpoints import errors
from export.checkpoints.child import REFUSED
from export.checkpoints.errors import CheckpointError, DamagedError, TooLargeError, UnknownFormatError
from export.checkpoints.networks import Kind
from export.checkpoints.records import Budget

SECONDS = 300  # of processor time for a file; twice as many on the clock
_TOO_LONG = "takes more than {} s to read, which no generator's checkpoint does"
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True, kw_only=True)
class PublishedGenerator:
    """A generator under its publisher's names; the moving average of its weights, if the file has one.

    Attributes:
        kind: the publisher.
        tensors: by name, on the CPU, contiguous, of the type in the file: ``synthesis.b4.const`` of nvlabs,
            ``input.input`` of rosinality (with the file's ``latent_avg``), ``synthesis.layer0.weight`` of genforce.
        attributes: JSON values. Of nvlabs, the plain attributes of every module by dotted name (``z_dim``,
            ``mapping.num_layers``), with ``class_name`` and ``_init_kwargs``; of rosinality and genforce, the entries
            beside the networks (``args`` as a dictionary); of own files, the metadata. Other values are left out.
    """

    kind: Kind
    tensors: dict[str, Tensor]
    attributes: dict[str, object]


def read_checkpoint(path: Path) -> PublishedGenerator:
    """Read a generator's checkpoint: NVlabs' ``.pkl``, rosinality's ``.pt``, genforce's ``.pth``, own safetensors.

    Raises:
        CheckpointError: see `export.checkpoints.errors`; the message is one line.
    """
    if not path.is_file():  # opening a pipe would wait
        raise CheckpointError(f"no checkpoint at `{path}`")
    try:
        if _is_safetensors(path):
            return _own(path)
        with TemporaryDirectory(prefix="checkpoint-") as folder:
            target = Path(folder) / "generator.safetensors"
            _read_in_child(path.absolute(), target)
            return loaded(target)
    except CheckpointError as error:
        raise type(error)(f"cannot read `{path.name}`: it {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read `{path}`: {error.strerror or error}") from error


def loaded(path: Path) -> PublishedGenerator:
    """The checkpoint in a file that `export.checkpoints.child` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  no mapping
    except SafetensorError as error:  # a name is not text
        raise DamagedError("is damaged") from error
    return PublishedGenerator(
        kind=cast("Kind", metadata["kind"]), tensors=tensors, attributes=json.loads(metadata["attributes"])
    )


def _read_in_child(path: Path, target: Path) -> None:
    command = [sys.executable, "-P", "-m", "export.checkpoints.child", str(path), str(target), str(SECONDS)]
    # One thread: each reserves address space, which is bounded.
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TooLargeError(_TOO_LONG.format(SECONDS)) from error
    if done.returncode == REFUSED:
        name, message = json.loads(done.stdout)
        raise getattr(errors, name)(message)
    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        raise TooLargeError(_TOO_LONG.format(SECONDS))
    if done.returncode:
        raise DamagedError("is damaged: the process that read it crashed")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def _own(path: Path) -> PublishedGenerator:
    """A generator that this project wrote."""
    budget = Budget()
    budget.spend("bytes", path.stat().st_size)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if "fingerprint" not in metadata:
                raise UnknownFormatError("is a safetensors file, but not of a generator of this project")
            tensors = {}
            for name in file.keys():  # noqa: SIM118  safe_open is not a mapping
                budget.spend("values")
                budget.spend("elements", math.prod(file.get_slice(name).get_shape()))
                tensors[name] = file.get_tensor(name).clone()
    except SafetensorError as error:
        raise DamagedError("is damaged") from error
    return PublishedGenerator(kind="own", tensors=tensors, attributes={**metadata})
