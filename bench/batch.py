"""Rate of batch edits compared with the bare graphs: ``python -m bench batch``.

The bare side runs ``faces``, ``ffhq_invert`` and ``ffhq_edit`` photo by photo in this process, in as many threads as
the batch has photos in progress. The batch is ``client batch edit --fast`` in its own process, from the first photo to
the last: it also decodes, sends, encodes and writes. The sides alternate within a round and never run at the same time.

Exceptions::

    ValueError
    +-- BatchError  the batch failed, or an option is out of range

Also `bench.bare.ModelError`, `bench.page.PageError` and those of `server.errors`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from tqdm import tqdm

from assets.paths import REPOSITORY
from bench import page
from bench.bare import Arrays, Bare
from bench.table import head
from bench.throughput import feeds
from client.files import direction as directions
from server.triton import LocalTriton

MARK = "batch"
IN_FLIGHT = (1, 2, 4)
WORKERS = (1, 2)
EDIT = "age=-3,3"
SIDE = 512
HEAD = """
import sys, ray
ray.init(address="local", object_store_memory=10**8, include_dashboard=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


class BatchError(ValueError):
    """The batch failed, or an option is out of range."""


@dataclass(frozen=True)
class Way:
    """One way to run a batch: photos per minute of both sides, by round."""

    name: str
    in_flight: int
    bare: tuple[float, ...]
    batch: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Batch over bare rate, by round."""
        return [batch / bare for bare, batch in zip(self.bare, self.batch, strict=True)]


def photos(folder: Path, count: int) -> Path:
    """Write ``count`` synthetic photos without a face, of 512 px, into a new folder."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    for number in range(count):
        phase = rng.uniform(0, 6, (3, 2))
        waves = [127 + 100 * np.sin(6 * x + a) * np.cos(5 * y + b) for a, b in phase]
        Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=92)
    return folder


class BareEdit:
    """Face search, inversion and edits of one photo by the graphs alone."""

    def __init__(self) -> None:
        self._find, self._invert, self._edit = (
            Bare(REPOSITORY, name) for name in ("faces", "ffhq_invert", "ffhq_edit")
        )
        feed = feeds(REPOSITORY)
        self._square, self._change = feed["ffhq_invert"], feed["ffhq_edit"]
        self._photo: Arrays = {"image": np.zeros((SIDE, SIDE, 3), np.uint8)}
        self._strengths = np.array([-3.0, 3.0], np.float32)

    def __call__(self) -> None:
        """Run all of it once."""
        self._find.run(self._photo)
        code: Arrays = self._invert.run(self._square)
        tensors = {name: code[name][0] for name in ("f", "w_m_plus", "w_coarse")}
        self._edit.run({**self._change, **tensors, "strengths": self._strengths})

    def rate(self, count: int, *, in_flight: int) -> float:
        """Photos per minute."""
        began = time.perf_counter()
        with ThreadPoolExecutor(in_flight) as pool:
            for done in [pool.submit(self) for _ in range(count)]:
                done.result()
        return 60 * count / (time.perf_counter() - began)


def batch(url: str, folder: Path, place: Path, *more: str) -> tuple[float, int]:
    """Run a batch into a new folder; returns photos per minute, and the peak memory of its process in bytes.

    Raises:
        BatchError: the batch failed.
    """
    out = Path(tempfile.mkdtemp(dir=place)) / "out"
    command = [sys.executable, "-m", "client", "batch", "edit", "--photos", str(folder), "--out", str(out)]
    command += ["--frame", "square", "--edit", EDIT, "--fast", "--url", url, "--json", *more]
    with tempfile.TemporaryFile() as output:
        process, peak = subprocess.Popen(command, stdout=output), 0
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            time.sleep(0.2)
        output.seek(0)
        answer = output.read()
    if process.returncode:
        raise BatchError(f"the batch exited with {process.returncode}: {answer.decode(errors='replace')[:300]}")
    return float(json.loads(answer)["run"]["per_minute"]), peak


def _peak(pid: int) -> int:
    """Peak memory of a process in bytes; ``wait4`` would include its parent, from before exec."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = re.search(r"^VmHWM:\s+(\d+) kB$", status, flags=re.MULTILINE)
    return int(line[1]) * 1024 if line else 0


def measure(url: str, place: Path, *, count: int, rounds: int, address: str | None) -> Iterator[Way]:
    """Run every way of batching, in turn with the bare graphs."""
    folder, bare = photos(place / "photos", count), BareEdit()
    bare.rate(2, in_flight=1)
    ways = [("one process", n, ["--concurrency", str(n)]) for n in IN_FLIGHT]
    if address is not None:
        ray = ["--engine", "ray", "--address", address, "--concurrency", "2"]
        ways += [(f"Ray, {n} worker{'s' * (n > 1)}", 2 * n, [*ray, "--workers", str(n)]) for n in WORKERS]
    for name, in_flight, more in ways:
        pairs = []
        for number in range(rounds):
            sides = [
                lambda: bare.rate(count, in_flight=in_flight),  # noqa: B023 - called within the iteration
                lambda: batch(url, folder, place, *more)[0],  # noqa: B023
            ]
            first = number % 2
            rates = {first: sides[first](), 1 - first: sides[1 - first]()}
            pairs.append((rates[0], rates[1]))
        yield Way(name, in_flight, *(tuple(side) for side in zip(*pairs, strict=True)))


def memory(url: str, place: Path, counts: tuple[int, int]) -> list[tuple[int, int]]:
    """Peak memory of a batch in bytes, with the number of its photos."""
    peaks = []
    for count in counts:
        folder = photos(place / f"photos-{count}", count)
        peaks.append((count, batch(url, folder, place)[1]))
    return peaks


@contextmanager
def cluster() -> Iterator[str]:
    """Run a Ray cluster on this machine; gives its address."""
    # Clients in this process use the same token.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def table(rows: list[Way], peaks: list[tuple[int, int]], machine: str) -> str:
    """Two Markdown tables, and the machine they were measured on."""
    lines = head(["batch", "photos in progress", "batch / bare", "min..max", "batch, photos/min", "bare, photos/min"])
    for way in rows:
        span = f"{min(way.ratios):.2f}..{max(way.ratios):.2f}"
        rates = f"{median(way.batch):.1f} | {median(way.bare):.1f}"
        lines.append(f"| {way.name} | {way.in_flight} | **{median(way.ratios):.2f}** | {span} | {rates} |")
    if peaks:
        lines += ["", *head(["photos", "peak memory of the client"])]
        lines += [f"| {count} | {peak / 2**20:.0f} MiB |" for count, peak in peaks]
    return "\n".join([*lines, "", machine, ""])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench batch``."""
    add = parser.add_argument
    add("--photos", type=int, default=16, metavar="N", help="photos per batch (default: 16)")
    add("--rounds", type=int, default=5, help="rounds, each a pair of bare and batch (default: 5)")
    add("--ray", action="store_true", help="also run on a Ray cluster on this machine")
    add("--memory", type=int, nargs=2, metavar="N", help="also measure the peak memory of batches of N and N photos")
    add("--write", type=Path, metavar="FILE", help=f"write the tables between the marks of {MARK} in a file")


def run(args: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BatchError: an option is out of range, or a batch failed.
    """
    if not 2 <= args.photos <= 1000 or not 1 <= args.rounds <= 100:
        raise BatchError("`--photos` must be from 2 to 1000, and `--rounds` from 1 to 100")
    page.check(args.write, MARK)
    directions.load("ffhq", "age")
    ways = len(IN_FLIGHT) + len(WORKERS) * args.ray
    with tempfile.TemporaryDirectory() as folder, LocalTriton(REPOSITORY) as triton:
        place = Path(folder)

        def rows(address: str | None) -> list[Way]:
            measured = measure(triton.url, place, count=args.photos, rounds=args.rounds, address=address)
            return list(tqdm(measured, total=ways, desc="batch", disable=None))

        if args.ray:
            with cluster() as address:
                made = rows(address)
        else:
            made = rows(None)
        peaks = memory(triton.url, place, tuple(args.memory)) if args.memory else []
    cores = len(os.sched_getaffinity(0))
    machine = (
        f"{cores} CPU cores; batches of {args.photos} photos, edits {EDIT}, rounds: {args.rounds}. The rate of Ray's "
        "batches includes the start of its workers."
    )
    print(table(made, peaks, machine))
    page.write(args.write, table(made, peaks, machine), MARK)
