from __future__ import annotations

import os
import stat
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from server import assembly
from server.errors import AssemblyError

INSIDE = "pytriton/tritonserver"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Assemble from a small wheel with the members of the real one."""
    wheel = tmp_path / "server.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{INSIDE}/bin/tritonserver", "server")
        archive.writestr(f"{INSIDE}/backends/python/libtriton_python.so", "backend")
        archive.writestr(f"{INSIDE}/python_backend_stubs/{VERSION}/triton_python_backend_stub", "the right stub")
        archive.writestr(f"{INSIDE}/python_backend_stubs/3.8/triton_python_backend_stub", "another stub")
        archive.writestr("nvidia_pytriton.libs/libserver.so", "library")
        archive.writestr("pytriton/triton.py", "not wanted")
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(assembly, "wheel", lambda _: wheel)
    monkeypatch.setattr(assembly, "_libpython", lambda: Path("/opt/python/lib/libpython.so"))
    return tmp_path / "build" / "triton"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_layout(home: Path) -> None:
    made = assembly.assemble()
    assert made.executable == home / INSIDE / "bin/tritonserver"
    assert made.executable.stat().st_mode & stat.S_IXUSR
    stub = home / INSIDE / "backends/python/triton_python_backend_stub"
    assert stub.read_text() == "the right stub"
    assert stub.stat().st_mode & stat.S_IXUSR
    shared = {"batching.py", "model.py"}
    assert files(home) == {
        "stamp.txt",
        "nvidia_pytriton.libs/libserver.so",
        f"{INSIDE}/bin/tritonserver",
        f"{INSIDE}/backends/python/libtriton_python.so",
        f"{INSIDE}/backends/python/triton_python_backend_stub",
        *(f"{INSIDE}/backends/{name}/{file}" for name in ("onnxruntime", "pytorch") for file in shared),
    }
    assert not any(path.is_symlink() for path in home.rglob("*"))
    assert sorted(path.name for path in home.parent.iterdir()) == [".triton.lock", "triton"]
    assert f"--backend-directory={home / INSIDE / 'backends'}" in made.arguments


def test_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/known")
    environment = assembly.assemble().environment
    assert home.is_dir()
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["LD_LIBRARY_PATH"] == "/opt/python/lib:/known"


def test_assembling_again_changes_nothing_and_a_change_builds_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembly.assemble()
    before = home.stat().st_ino
    assembly.assemble()
    assert home.stat().st_ino == before
    monkeypatch.setattr(assembly, "_stamp", lambda: "another")
    (home / "left over").touch()
    assembly.assemble()
    assert home.stat().st_ino != before
    assert "left over" not in files(home)
    assert sorted(path.name for path in home.parent.iterdir()) == [".triton.lock", "triton"]


def test_two_that_assemble_at_once_build_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, is_stamped = assembly._build, assembly._is_stamped
    builds: list[Path] = []
    looked = threading.Barrier(2)
    first = threading.local()

    def look(*arguments: Any) -> bool:
        found = is_stamped(*arguments)
        if not hasattr(first, "done"):
            # Both see that nothing is there before either builds.
            first.done = looked.wait(30)
        return found

    monkeypatch.setattr(assembly, "_is_stamped", look)
    monkeypatch.setattr(assembly, "_build", lambda *arguments: (builds.append(home), build(*arguments)))
    with ThreadPoolExecutor(2) as pool:
        assert len({made.result().executable for made in [pool.submit(assembly.assemble) for _ in range(2)]}) == 1
    assert builds == [home]


def test_a_failure_leaves_what_was_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assembly.assemble()
    before = files(home)
    monkeypatch.setattr(assembly, "_stamp", lambda: "another")
    monkeypatch.setattr(assembly.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        assembly.assemble()
    assert files(home) == before
    assert sorted(path.name for path in home.parent.iterdir()) == [".triton.lock", "triton"]


def test_a_machine_it_cannot_run_on_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly.platform, "machine", lambda: "aarch64")
    with pytest.raises(AssemblyError, match=r"only on Linux x86_64, not on .* aarch64"):
        assembly.assemble()


def test_a_python_without_its_shared_library_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly.sys, "version_info", (3, 12, 0))
    monkeypatch.setattr(assembly, "_python_version", lambda: "3.12")
    monkeypatch.setattr(assembly.sysconfig, "get_config_var", lambda _: str(tmp_path))
    monkeypatch.setattr(assembly.sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(assembly.ctypes.util, "find_library", lambda _: None)
    with pytest.raises(AssemblyError, match=r"no shared library libpython3\.12\.so\.1\.0"):
        assembly.assemble()
