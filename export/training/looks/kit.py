"""Everything that a training needs, for a machine without a network: ``python -m export kit``.

The kit is one tar archive in parts of at most 58 MB: code, weights, faces, and weights to start from. On the machine::

    cat part-* | tar x -C kit
    bash kit/start.sh 25      # trains for 25 minutes, detached, in kit/run; the log is kit/run.log
    bash kit/wait.sh 500 OUT  # waits until it is done, 500 seconds at most; copies weights and log to OUT

Weights come back as files of at most 15 MB, which the next kit takes to start from (``--start-from``).
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

from safetensors.torch import load_file, save

from assets.descriptor import descriptor, descriptor_file
from assets.face_net import face_net_file
from assets.paths import build_dir, generator_file, project_root
from assets.perceptual import stlpips_file
from export.training.looks.weights import NONE, start_files

PART = 58_000_000
CODE = ("assets", "export", "judges", "networks", "protocol", "server")
START = """\
#!/usr/bin/env bash
# start.sh MINUTES [OPTIONS]: trains detached from this folder; the log is run.log.
cd "$(dirname "$0")" && export UNALIGNED_BUILD="$PWD/build" PYTHONUNBUFFERED=1
minutes=$1 && shift
[ -d start ] && set -- --start-from start "$@"
setsid nohup python3 -m export.training.looks --photos faces/* --folder run --minutes "$minutes" "$@" \\
    > run.log 2>&1 < /dev/null &
"""
WAIT = """\
#!/usr/bin/env bash
# wait.sh SECONDS OUT: until the training is done; weights and log to OUT, and the log's end.
cd "$(dirname "$0")" || exit
for _ in $(seq "$1"); do
    pgrep -f export.training.looks > /dev/null || break
    sleep 1
done
mkdir -p "$2" && cp run/*.safetensors "$2"/
tail -c 4000000 run.log > "$2/run.log"
grep -v -i warn run.log | tail -30
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m export kit``."""
    parser.add_argument(
        "--photos", type=Path, nargs="+", required=True, metavar="SET", help="zip files of faces with landmarks.csv"
    )
    parser.add_argument(
        "--start-from", type=Path, metavar="FOLDER",
        help="weights to start from, or `none` (default: those that ship)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=build_dir() / "kit", help="for part-*; default: build/kit")


def run(args: argparse.Namespace) -> None:
    """Write the parts."""
    parts = pack(args.out, photos=args.photos, start=args.start_from, domain=args.domain)
    for part in parts:
        print(f"{part}: {part.stat().st_size / 1e6:.1f} MB")


def contents(*, photos: list[Path], start: Path | None, domain: str) -> dict[str, Path]:
    """Names in the archive, and the files."""
    descriptor()  # downloads it if it is missing
    root, build = project_root(), build_dir()
    weights = [generator_file(domain), stlpips_file("alex"), stlpips_file("vgg"), descriptor_file()]
    files = {f"build/{path.relative_to(build)}": path for path in weights}
    for folder in CODE:
        files |= {str(path.relative_to(root)): path for path in sorted((root / folder).rglob("*.py"))}
    files[str(face_net_file().relative_to(root))] = face_net_file()
    directions = root / "client" / "directions" / domain
    files |= {str(path.relative_to(root)): path for path in sorted(directions.glob("*.safetensors"))}
    files |= {f"faces/{path.name}": path for path in photos}
    if start is None:
        files |= {str(path.relative_to(root)): path for path in start_files(domain)}
    elif start != NONE:
        files |= {f"start/{path.name}": path for path in sorted(start.glob("*-[0-9].safetensors"))}
    return files


def pack(out: Path, *, photos: list[Path], start: Path | None, domain: str) -> list[Path]:
    """Write a kit; returns its parts.

    Raises:
        ValueError: a set of faces is not a zip file, or there are no weights to start from where some are named.
        OSError: a file is missing.
    """
    for path in photos:
        if path.suffix != ".zip":
            raise ValueError(f"cannot pack `{path}`: expected a zip file of faces")
    if start not in {None, NONE} and not any(start.glob("*-[0-9].safetensors")):
        raise ValueError(f"no weights to start from in `{start}`")
    files = contents(photos=photos, start=start, domain=domain)
    halved = {stlpips_file("alex"), stlpips_file("vgg"), descriptor_file()}
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("part-*"):
        old.unlink()
    writer = PartFiles(out)
    with tarfile.open(fileobj=writer, mode="w|") as archive:
        for name, text in (("start.sh", START), ("wait.sh", WAIT), ("pyproject.toml", "")):
            _add(archive, name, text.encode())
        for name, path in files.items():
            if path in halved:
                _add(archive, name, smaller(path))
            else:
                archive.add(path, name)
    writer.close()
    return writer.files


def smaller(path: Path) -> bytes:
    """Weights with a float16 for each float32, which a loss does not tell apart."""
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in load_file(path).items()}
    return save(tensors)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o755
    archive.addfile(info, io.BytesIO(data))


class PartFiles(io.RawIOBase):
    """A file that continues in a new one after ``PART`` bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self._left = folder, 0
        self._file: io.BufferedWriter | None = None
        self.files: list[Path] = []

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write all of it."""
        view = memoryview(data)
        while view:
            if not self._left:
                self._next()
            assert self._file is not None
            self._file.write(view[: self._left])
            done = min(len(view), self._left)
            self._left -= done
            view = view[done:]
        return len(data)

    def _next(self) -> None:
        if self._file is not None:
            self._file.close()
        self.files.append(self.folder / f"part-{len(self.files):02d}")
        self._file, self._left = self.files[-1].open("wb"), PART

    def close(self) -> None:
        """Close the last part."""
        if self._file is not None:
            self._file.close()
        super().close()
