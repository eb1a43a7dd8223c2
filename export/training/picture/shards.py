"""A folder of shards, each made once, by its number alone, and then read from memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class Make(Protocol):
    """Makes the shard of a number."""

    def __call__(self, *, number: int) -> dict[str, Tensor]:
        """See the class."""


class ShardFolder:
    """A folder of shards.

    Args:
        folder: holds them.
        path: the file of a shard.
        size: examples in a shard.
        device: where examples are drawn to.
    """

    def __init__(self, folder: Path, *, path: Callable[[Path, int], Path], size: int, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self._path, self._size = path, size
        self.read: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return self._size * len(self.read)

    def make(self, count: int, make: Make) -> int:
        """Make what is missing of ``count`` examples, and read all; returns how many were made."""
        made = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(len(self.read), -(-count // self._size)):
            path = self._path(self.folder, number)
            if not path.exists():
                partial = path.with_suffix(".part")
                save_file(make(number=number), partial)
                partial.replace(path)
                made += self._size
            self.read.append(load_file(path))
        return made
