from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from export.training.looks import kit


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    weights = tmp_path / "generator.safetensors"
    save_file({"a": torch.zeros(1000)}, weights)
    monkeypatch.setattr(kit, "contents", lambda **_: {"build/g.safetensors": weights, "export/x.py": Path(__file__)})
    monkeypatch.setattr(kit, "PART", 4000)
    return {"weights": weights, "out": tmp_path / "kit"}


def test_the_parts_make_one_archive(world: dict[str, Path]) -> None:
    parts = kit.pack(world["out"], photos=[], start=None, domain="ffhq")
    assert len(parts) > 2
    assert [part.name for part in parts] == [f"part-{n:02d}" for n in range(len(parts))]
    assert {part.stat().st_size for part in parts[:-1]} == {4000}
    joined = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(fileobj=joined) as archive:
        assert {"start.sh", "wait.sh", "build/g.safetensors", "export/x.py"} <= set(archive.getnames())
        member = archive.extractfile("build/g.safetensors")
        assert member is not None
        assert member.read() == world["weights"].read_bytes()


def test_parts_of_an_earlier_kit_do_not_stay(world: dict[str, Path]) -> None:
    world["out"].mkdir()
    (world["out"] / "part-99").write_bytes(b"old")
    kit.pack(world["out"], photos=[], start=None, domain="ffhq")
    assert not (world["out"] / "part-99").exists()


def test_a_kit_has_weights_to_start_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kit, "descriptor", lambda: None)
    (tmp_path / "looks-0.safetensors").write_bytes(b"")
    shipped, none, own = (
        kit.contents(photos=[], start=start, domain="ffhq") for start in (None, Path("none"), tmp_path)
    )
    assert "networks/weights/ffhq/looks16.safetensors" in shipped
    assert not any("looks16" in name or name.startswith("start/") for name in none)
    assert set(own) - set(none) == {"start/looks-0.safetensors"}


def test_what_cannot_be_packed_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a zip file"):
        kit.pack(tmp_path, photos=[tmp_path], start=None, domain="ffhq")
    with pytest.raises(ValueError, match="no weights to start from"):
        kit.pack(tmp_path, photos=[], start=tmp_path, domain="ffhq")


@pytest.mark.parametrize("script", [kit.START, kit.WAIT])
def test_the_scripts_are_sound(script: str, tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(script)
    subprocess.run(["bash", "-n", str(path)], check=True)
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_kit_takes_what_training_imports() -> None:
    parser = argparse.ArgumentParser()
    kit.add_arguments(parser)
    assert parser.parse_args(["--photos", "a.zip"]).photos == [Path("a.zip")]
    assert {"assets", "export", "judges", "networks"} <= set(kit.CODE)
