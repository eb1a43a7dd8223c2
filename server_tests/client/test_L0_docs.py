"""The examples of the documentation run against the real servers: Python blocks, and the README's client commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from server.sidecar import LocalSidecar
from server.triton import LocalTriton
from server_tests.client.commands import client

ROOT = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{i}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL))
]


def couple() -> Image.Image:
    """A photo of two people, 1024x512."""
    one = data.astronaut()
    return Image.fromarray(np.concatenate([one, one[:, ::-1]], axis=1))


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_runs(block: str, triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    couple().save("photo.jpg")
    assert "127.0.0.1:8001" in block
    names: dict[str, object] = {}
    exec(block.replace("127.0.0.1:8001", triton.url), names)
    sizes = {"reconstruction": (1024, 1024, 3), "older": (512, 1024, 3)}
    shapes = {name: names[name].shape[-3:] for name in sizes.keys() & names}  # type: ignore[attr-defined]
    saved = []
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            saved.append(picture.size)
    assert shapes or saved
    assert all(shape == sizes[name] for name, shape in shapes.items())
    assert all(size == (1024, 512) for size in saved)


def test_the_commands_of_the_readme_run(triton: LocalTriton, sidecar: LocalSidecar, tmp_path: Path) -> None:
    commands = re.findall(r"^client (.*)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"invert", "edit"}
    couple().save(tmp_path / "photo.jpg")
    for command in commands:
        # One step of refinement instead of some hundred.
        short = ["--steps", "1"] if command.startswith("invert") and "--fast" not in command else []
        done = client(tmp_path, *shlex.split(command), *short, url=triton.url, refine_url=sidecar.url)
        assert done.returncode == 0, done.stderr
    pictures = {path.name for path in (tmp_path / "out/photo").glob("*.png")}
    assert {"photo.reconstruction.png"} <= pictures
