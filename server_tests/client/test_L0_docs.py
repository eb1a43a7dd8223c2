"""Every Python block of the documentation runs against the real server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from server.triton import LocalTriton

ROOT = Path(__file__).parents[2]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{i}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_runs(block: str, triton: LocalTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((300, 200)).save("photo.jpg")
    assert "127.0.0.1:8001" in block
    names: dict[str, object] = {}
    exec(block.replace("127.0.0.1:8001", triton.url), names)
    pictures = [value for name, value in names.items() if name in {"reconstruction", "older"}]
    assert pictures
    assert all(picture.shape[-3:] == (1024, 1024, 3) for picture in pictures)  # type: ignore[attr-defined]
