"""Regenerate the stubs: ``python -m protocol [FOLDER]``, by default in place."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(folder: Path) -> None:
    """Write ``protocol/refine_pb2.py``, its types and ``protocol/refine_pb2_grpc.py`` under ``folder``."""
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    status = protoc.main(["protoc", *includes, *outputs, str(ROOT / "protocol" / "refine.proto")])
    if status:
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
