"""``python -m server_tests.chaos``: batches of photos while everything around them breaks; exit code 1 if one suffers.

Servers, launcher and client are the real ones, over tiny networks (`server_tests.chaos.tiny`). Every batch is resumed
until it is done, and is then compared with an undisturbed one. The last minutes are quiet: memory must stay where the
first of their batches left it.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from server.ports import free_port
from server_tests.chaos.processes import memory, send, tree
from server_tests.chaos.proxy import Proxy
from server_tests.chaos.tiny import repository
from server_tests.chaos.wrong import Wrong

PHOTOS = 12
QUIET_BATCHES = 4
PLATEAU = 1.1
FIRST_S = 180.0
FULL = 60 * 1024
TINY = [sys.executable, "-m", "server_tests.chaos.tiny"]


class NeverWorked(Exception):
    """Not even the first batch, in which nothing breaks, works; the message ends with the last lines of a log."""


class Chaos:
    """One run.

    Args:
        folder: of everything it writes.
        seconds: how long things break.
        seed: of what breaks when; the machine decides where a process is by then.
        photos: of each batch.
        quiet: batches at the end in which nothing breaks.
    """

    def __init__(
        self, folder: Path, *, seconds: float, seed: int, photos: int = PHOTOS, quiet: int = QUIET_BATCHES
    ) -> None:
        self.folder, self.seconds, self.draw, self.seed = folder, seconds, random.Random(seed), seed
        self.size, self.quiet = photos, quiet
        self.harm, self.exits, self.troubles = Counter[str](), Counter[int](), []
        self.batches = self.photos = self.lost = self.doubled = self.different = 0
        self.ports = [free_port("127.0.0.1", set()) for _ in range(2)]
        self.proxies = [Proxy(port) for port in self.ports]
        self.launcher: subprocess.Popen[bytes] | None = None
        self.client: subprocess.Popen[bytes] | None = None
        self.starts, self.end = 0, 0.0
        self.stopped: list[tuple[float, int]] = []
        self.most = 0.0
        self.reference: dict[str, bytes] = {}

    def run(self) -> dict[str, Any]:
        """Return the figures; nothing is left running, whatever happens.

        Raises:
            NeverWorked: there is nothing to break.
        """
        try:
            return self._run()
        finally:
            self.resume(everything=True)
            for process in (self.client, self.launcher):
                if process is not None and process.poll() is None:
                    process.terminate()
                    process.wait(60)

    def _run(self) -> dict[str, Any]:
        repository(self.folder / "models")
        (self.folder / "photos").mkdir()
        for number in range(self.size):
            pixels = np.random.default_rng(number).integers(0, 256, (90, 100, 3), np.uint8)
            Image.fromarray(pixels).save(self.folder / f"photos/{number}.png")
        began = time.monotonic()
        self.keep_up()
        self.batch(calm=True)
        if self.troubles:
            raise NeverWorked(f"the first batch failed, though nothing broke: {self.troubles}\n{self.last_lines()}")
        self.reference = self.results(self.folder / "out")
        wrong = Wrong(*(proxy.port for proxy in self.proxies), self.seed)
        wrong.start()
        self.end = time.monotonic() + self.seconds
        while time.monotonic() < self.end:
            self.batch(calm=False)
        self.release()
        plateau = []
        for _ in range(self.quiet):
            self.batch(calm=True)
            plateau.append(self.servers())
        wrong.stop()
        wrong.join(60)
        assert self.launcher is not None
        self.launcher.terminate()
        self.launcher.wait(60)
        return {
            "seed": self.seed,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "batches": self.batches,
            "photos": self.photos,
            "lost": self.lost,
            "doubled": self.doubled,
            "different": self.different,
            "harm": dict(sorted(self.harm.items())),
            "starts of the servers": self.starts + self.restarts(),
            "exit codes of the client": {str(code): count for code, count in sorted(self.exits.items())},
            "malformed requests": wrong.sent,
            "answers to them": dict(wrong.statuses),
            "MiB at most": round(self.most),
            "MiB after each quiet batch": [round(size) for size in plateau],
            "plateau": plateau[-1] <= PLATEAU * plateau[0],
            "troubles": self.troubles,
        }

    def restarts(self) -> int:
        """How often the launcher brought the servers up again."""
        return (self.folder / "launcher.txt").read_text(errors="replace").count("are started again")

    def keep_up(self) -> None:
        """Start the launcher unless it runs: in production, a supervisor does that."""
        if self.launcher is not None and self.launcher.poll() is None:
            return
        if self.launcher is not None and not self.reference:
            raise NeverWorked(f"the servers ended with status {self.launcher.returncode}:\n{self.last_lines()}")
        triton, sidecar = map(str, self.ports)
        where = ["--repository", str(self.folder / "models"), "--grpc-port", triton, "--sidecar-port", sidecar]
        rest = ["--sidecar-metrics-port", "0", "--grace", "2", "--json"]
        with (self.folder / "launcher.txt").open("ab") as out:
            self.launcher = subprocess.Popen(
                [*TINY, "start", "--sidecar", "--restart", *where, *rest], stdout=subprocess.DEVNULL, stderr=out
            )
        self.starts += 1

    def last_lines(self) -> str:
        """What the launcher said last."""
        path = self.folder / "launcher.txt"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-25:]) or "The launcher said nothing."

    def batch(self, *, calm: bool) -> None:
        """One batch to its end, and what became of it."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        limit = time.monotonic() + (600 if self.reference else FIRST_S)
        while True:
            code, said = self.attempt(calm=calm)
            self.exits[code] += 1
            if code in (0, 1):
                break
            if time.monotonic() > limit:
                self.troubles.append(f"a batch did not end in time: {said[-500:]}")
                break
            # What stopped a batch is not to stop the next attempt.
            time.sleep(0.5)
        self.batches += 1
        self.judge(out, said)

    def attempt(self, *, calm: bool) -> tuple[int, str]:
        """Run the client until it ends or is killed."""
        triton, sidecar = (f"127.0.0.1:{proxy.port}" for proxy in self.proxies)
        command = ["batch", "edit", "--photos", "photos", "--out", "out", "--edit", "age=-1,1", "--steps", "40"]
        waits = ["--timeout", "10", "--patience", "40", "--checkpoint-every", "5", "--resume", "--json"]
        # The end of the last batch is calm, too.
        full = not calm and time.monotonic() < self.end and self.draw.random() < 0.1
        self.harm["full disks"] += full
        with (self.folder / "client.txt").open("w+b") as said:
            self.client = subprocess.Popen(
                [sys.executable, "-m", "client", *command, *waits, "--url", triton, "--refine-url", sidecar],
                cwd=self.folder,
                stdout=said,
                stderr=said,
            )
            if full:
                # No file grows beyond this: as on a full disk, writing fails in the middle.
                resource.prlimit(self.client.pid, resource.RLIMIT_FSIZE, (FULL, FULL))
            next_harm = time.monotonic() + self.draw.uniform(0, 4)
            while self.client.poll() is None:
                time.sleep(0.05)
                self.keep_up()
                self.resume()
                if not calm and time.monotonic() > self.end:
                    self.release()
                elif not calm and time.monotonic() > next_harm:
                    self.break_something()
                    next_harm = time.monotonic() + self.draw.uniform(0.5, 10)
            self.client.wait()
            said.seek(0)
            return self.client.returncode, said.read().decode(errors="replace")

    def break_something(self) -> None:
        """Kill or stop a process, or cut or hold connections."""
        self.most = max(self.most, self.servers())
        proxy = self.draw.choice(self.proxies)
        what = self.draw.choice(["kill", "kill", "stop", "cut", "hold"])
        if what == "cut":
            self.harm["connections cut"] += 1
            proxy.cut()
        elif what == "hold":
            self.harm["connections held"] += 1
            proxy.hold(self.draw.uniform(0.5, 30))
        else:
            assert self.launcher is not None and self.client is not None
            there = tree(self.launcher.pid) | tree(self.client.pid)
            kind = self.draw.choice(sorted(set(there.values()) - {"decoder"}))
            pid = self.draw.choice(sorted(pid for pid, name in there.items() if name == kind))
            self.harm[f"{kind} {'killed' if what == 'kill' else 'stopped'}"] += 1
            if what == "kill":
                send(pid, signal.SIGKILL)
            else:
                send(pid, signal.SIGSTOP)
                self.stopped.append((time.monotonic() + self.draw.uniform(0.5, 25), pid))

    def resume(self, *, everything: bool = False) -> None:
        """Let stopped processes run again whose time has come."""
        now = time.monotonic()
        for until, pid in [each for each in self.stopped if everything or each[0] < now]:
            send(pid, signal.SIGCONT)
            self.stopped.remove((until, pid))

    def release(self) -> None:
        """End what lasts: let stopped processes run, and held connections flow."""
        self.resume(everything=True)
        for proxy in self.proxies:
            proxy.release()

    def servers(self) -> float:
        """MiB of the servers."""
        assert self.launcher is not None
        return memory(tree(self.launcher.pid))

    def results(self, out: Path) -> dict[str, bytes]:
        """The files of a batch, by path, without its ledger and report."""
        files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        return {name: data for name, data in files.items() if not name.startswith(("ledger", "report"))}

    def judge(self, out: Path, said: str) -> None:
        """Count what is lost, doubled or different."""
        found = self.results(out)
        entries = []
        if (out / "ledger.sqlite").exists():
            with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger:
                entries = ledger.execute("SELECT name, state, attempts, sentence FROM photos").fetchall()
        bad = [entry for entry in entries if entry[1] != "done"]
        self.photos += len(entries)
        missing = set(self.reference or found) - set(found)
        extra = set(found) - set(self.reference or found)
        different = [name for name in found if self.reference and found[name] != self.reference.get(name)]
        self.lost += max(len(bad), self.size - len(entries), len(missing))
        self.doubled += len(extra) + sum(attempts != 1 for *_, attempts, _ in entries)
        self.different += len(different) - len(extra)
        if bad or missing or extra or different:
            self.troubles.append({"bad": bad, "missing": sorted(missing), "extra": sorted(extra), "said": said[-500:]})


def main() -> int:
    """Run, and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m server_tests.chaos", description=__doc__.partition(";")[0])
    parser.add_argument("--minutes", type=float, default=5, help="how long things break (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of what breaks when (default: %(default)d)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        try:
            found = Chaos(Path(folder), seconds=60 * options.minutes, seed=options.seed).run()
        except NeverWorked as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 1
    print(json.dumps(found, indent=1))
    good = found["plateau"] and not (found["lost"] or found["doubled"] or found["different"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
