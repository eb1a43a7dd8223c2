"""Writes the synchronous modules from the asynchronous ones: ``python -m client.unasync``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
# Source, and what is generated from it.
MODULES: Final = {
    "triton/grpc.py": "triton/grpc_sync.py",
    "triton/session.py": "triton/session_sync.py",
    "api.py": "api_sync.py",
}
_RULES: Final = [
    (r"from client\.api_sync import .*\n", ""),
    (r"__all__ = .*\n", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"import asyncio\n", ""),
    (r"\bawait asyncio\.to_thread\(([\w.]+), ", r"\1("),
    (r"\bawait ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"from collections\.abc import Awaitable, ", "from collections.abc import "),
    (r"\bAsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bAsync([A-Z]\w+)", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\baclosing\b", "closing"),
    (r"\b(refine|refine_together)_async\b", r"\1"),
    (r"from tritonclient\.grpc import aio as library", "from tritonclient import grpc as library"),
    (r"\bclient\.triton\.(grpc|session)\b", r"client.triton.\1_sync"),
    (r"``async with``", "``with``"),
    (r"an asynchronous generator", "a generator"),
]


def generated(source: str) -> str:
    """Return the synchronous text of a source, by its path in the package; needs Ruff."""
    text = (FOLDER / source).read_text()
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text)
    text = f"# Generated from {source} by `python -m client.unasync`: edit that file.\n{text}"
    for arguments in (["check", "--select", "I", "--fix-only", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(FOLDER / MODULES[source]), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=FOLDER.parent).stdout
    return text


def main() -> None:
    """Write them all."""
    for source, target in MODULES.items():
        (FOLDER / target).write_text(generated(source))


if __name__ == "__main__":
    main()
