"""The wire contract: its stubs are those of ``refine.proto``, and every part of it says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol.__main__ import ROOT, generate

PROTO = (ROOT / "protocol" / "refine.proto").read_text()


def test_the_stubs_are_generated_from_the_contract(tmp_path: Path) -> None:
    generate(tmp_path)
    made = sorted(path.name for path in (tmp_path / "protocol").iterdir())
    assert made == ["refine_pb2.py", "refine_pb2.pyi", "refine_pb2_grpc.py"]
    for name in made:
        assert (tmp_path / "protocol" / name).read_bytes() == (ROOT / "protocol" / name).read_bytes(), (
            f"{name} is out of date: python -m protocol"
        )


def undescribed(proto: str) -> list[str]:
    """Fields, values and calls without a comment above, but those whose message says it all."""
    lines, found, parents = proto.splitlines(), [], []
    for number, line in enumerate(lines):
        text = line.strip()
        if re.match(r"(message|enum|oneof|service) \w+ \{", text):
            parents.append(number)
        elif text == "}" and parents:
            parents.pop()
        elif re.match(r"(rpc \w+|(repeated |optional )?[\w.]+ \w+ = \d+;|[A-Z_]+ = \d+;)", text):
            described = lines[number - 1].strip().startswith("//")
            type_is_enough = re.match(r"[A-Z]\w+ \w+ = \d+;|[A-Z]+_UNSPECIFIED", text)
            if not (described or type_is_enough):
                found.append(text)
    return found


def test_every_field_says_what_it_is() -> None:
    assert undescribed(PROTO) == []
    assert undescribed("message A {\n  float b = 1;\n}") == ["float b = 1;"]


@pytest.mark.parametrize("unit", ["float32", "uint8", "[512, s, s]", "[styles, 512]", "[-1, 1]", "Seconds", "dB"])
def test_shapes_types_and_units_are_named(unit: str) -> None:
    assert unit in PROTO
