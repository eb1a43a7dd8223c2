from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from assets import wheels
from assets.errors import WheelError


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel in the build folder, pinned under the name "tiny"."""
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path / "build"))
    path = tmp_path / "build" / "wheels" / "tiny-1-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/data.bin", b"data")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(wheels, "PINS", {"tiny": wheels.Pin("tiny", "1", path.name, digest)})
    return path


def no_fetch(pin: wheels.Pin, _path: Path) -> None:
    raise WheelError(f"fetch of {pin.project}")


def test_a_verified_wheel_is_not_fetched_again(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_fetch", no_fetch)
    assert wheels.wheel("tiny") == pinned


def test_a_changed_wheel_is_fetched_anew(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_fetch", no_fetch)
    pinned.write_bytes(pinned.read_bytes() + b"more")
    with pytest.raises(WheelError, match="fetch of tiny"):
        wheels.wheel("tiny")


def test_pip_is_told_the_hash_and_its_failure_is_one_sentence(
    pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned.unlink()
    (tmp_path / "pip.py").write_text(
        "import sys, pathlib\n"
        "text = pathlib.Path(sys.argv[sys.argv.index('-r') + 1]).read_text().strip()\n"
        "assert {'--require-hashes', '--no-deps'} <= set(sys.argv)\n"
        "sys.exit('note\\nERROR: no ' + text)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WheelError) as caught:
        wheels.wheel("tiny")
    digest = wheels.PINS["tiny"].sha256
    assert str(caught.value) == f"cannot fetch tiny==1: ERROR: no tiny==1 --hash=sha256:{digest}"
    assert list(pinned.parent.iterdir()) == []


def test_an_unknown_name_is_reported() -> None:
    with pytest.raises(WheelError, match="no wheel is pinned as `nothing`: expected one of random_face"):
        wheels.wheel("nothing")


def test_extract_copies_one_member(pinned: Path, tmp_path: Path) -> None:
    assert pinned.is_file()
    target = tmp_path / "deep" / "data.bin"
    assert wheels.extract("tiny", "tiny/data.bin", target) == target
    assert target.read_bytes() == b"data"


def test_extract_leaves_nothing_behind_for_a_missing_member(pinned: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "data.bin"
    with pytest.raises(WheelError, match=f"no file `tiny/none.bin` in the wheel {pinned.name}"):
        wheels.extract("tiny", "tiny/none.bin", target)
    assert not target.parent.exists()


def test_every_pin_is_exact() -> None:
    for name, pin in wheels.PINS.items():
        assert pin.filename.startswith(f"{name}-{pin.version}-")
        assert len(bytes.fromhex(pin.sha256)) == 32
