"""The server of the wheel, laid out under ``build/triton`` with the Python-based backends of this package.

Copies, not links: the server refuses symbolic links. The folder keeps the wheel's own layout, because its binaries find
their libraries relative to themselves. It is stamped with the hashes of everything it is made of: assembling again is
instant, and a new wheel, Python or backend rebuilds it.

Raises `server.errors.AssemblyError` and `assets.errors.WheelError`.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from assets.paths import build_dir
from assets.wheels import PINS, wheel
from server.errors import AssemblyError

_BACKENDS = Path(__file__).resolve().parent / "backends"
_COMMON = _BACKENDS / "common"
_INSIDE = "pytriton/tritonserver"
_STAMP = "stamp.txt"
BACKEND_NAMES = ("onnxruntime", "pytorch")


@dataclass(frozen=True)
class Assembly:
    """A server that can be run: its executable, the arguments it needs, and the environment to run it in."""

    executable: Path
    arguments: tuple[str, ...]
    environment: dict[str, str]


def assemble() -> Assembly:
    """Lay the server out under ``build/triton`` unless it is up to date, and return how to run it.

    Raises:
        AssemblyError: the wheel has no binary for this machine or this Python.
        WheelError: the wheel cannot be fetched.
    """
    library = _libpython()
    home = build_dir() / "triton"
    stamp = _stamp()
    if not _is_stamped(home, stamp):
        home.parent.mkdir(parents=True, exist_ok=True)
        with _locked(home.parent / ".triton.lock"):
            # Another process may have been first, and its server may run from there by now.
            if not _is_stamped(home, stamp):
                _build(home, stamp)
    inside = home / _INSIDE
    arguments = (
        f"--backend-directory={inside / 'backends'}",
        f"--cache-directory={inside / 'caches'}",
        # The Python-based backends complete no configs, and asking them takes longer than loading a model.
        "--disable-auto-complete-config",
    )
    return Assembly(inside / "bin" / "tritonserver", arguments, _environment(library))


def _build(home: Path, stamp: str) -> None:
    source = wheel("nvidia_pytriton")
    temporary = Path(tempfile.mkdtemp(dir=home.parent, prefix=".triton-"))
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.namelist():
                target = _target(member)
                if target is None:
                    continue
                (temporary / target).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as opened, (temporary / target).open("wb") as out:
                    shutil.copyfileobj(opened, out, 1 << 20)
        inside = temporary / _INSIDE
        for program in (inside / "bin" / "tritonserver", inside / "backends" / "python" / "triton_python_backend_stub"):
            program.chmod(0o755)
        for name in BACKEND_NAMES:
            (inside / "backends" / name).mkdir()
            for file in [*_COMMON.glob("*.py"), *(_BACKENDS / name).glob("*.py")]:
                shutil.copyfile(file, inside / "backends" / name / file.name)
        (temporary / _STAMP).write_text(stamp)
        temporary.chmod(0o755)
        _replace(home, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(home: Path, temporary: Path) -> None:
    """Put the finished folder in its place; a folder cannot be renamed over a full one, so the old one steps aside."""
    old = Path(tempfile.mkdtemp(dir=home.parent, prefix=".triton-old-"))
    try:
        if home.exists():
            home.rename(old / "triton")
        temporary.rename(home)
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time in; the lock ends with its holder, however that ends."""
    import fcntl  # here, because Windows lacks it, and _libpython has the message for that

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _target(member: str) -> str | None:
    """Where a member of the wheel goes, or None for the ones left out."""
    stub = f"{_INSIDE}/python_backend_stubs/{_python_version()}/triton_python_backend_stub"
    if member == stub:
        return f"{_INSIDE}/backends/python/triton_python_backend_stub"
    wanted = (f"{_INSIDE}/bin/", f"{_INSIDE}/backends/", f"{_INSIDE}/caches/", "nvidia_pytriton.libs/")
    return member if member.startswith(wanted) and not member.endswith("/") else None


def _stamp() -> str:
    lines = [f"wheel {PINS['nvidia_pytriton'].sha256}", f"python {_python_version()}"]
    for file in sorted([Path(__file__).resolve(), *_BACKENDS.glob("*/*.py")]):
        lines.append(f"{file.parent.name}/{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return "\n".join(lines) + "\n"


def _is_stamped(home: Path, stamp: str) -> bool:
    try:
        return (home / _STAMP).read_text() == stamp
    except OSError:
        return False


def _environment(library: Path | None) -> dict[str, str]:
    environment = dict(os.environ)
    # The stub starts the first python3 on PATH to find its packages: this interpreter's (virtual) environment.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if library is not None:
        known = os.environ.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = f"{library.parent}{os.pathsep}{known}" if known else str(library.parent)
    return environment


def _libpython() -> Path | None:
    """The interpreter's own shared library; None if the stub brings its own or the system's loader finds it.

    Without it the stub cannot start, and the server would wait for ever.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise AssemblyError(
            f"the local Triton runs only on Linux x86_64, not on {platform.system()} {platform.machine()}"
        )
    if sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)):
        raise AssemblyError(f"the local Triton needs Python 3.11, 3.12 or 3.13, not {_python_version()}")
    if sys.version_info[:2] == (3, 13):
        return None
    name = f"libpython{_python_version()}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    if ctypes.util.find_library(f"python{_python_version()}"):
        return None
    raise AssemblyError(
        f"this Python has no shared library {name}, which the local Triton needs: install the Debian package "
        f"libpython{_python_version()}, or build Python with --enable-shared"
    )


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
