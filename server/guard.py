"""The process between a launcher and its server: it outlives the launcher long enough to clean up.

Runs as a script on its own (``python -I -S guard.py PREFIX GRACE LOG -- COMMAND...``): starts COMMAND with its output
in LOG, writes its process id to stdout, and stops it when its own stdin ends, that is when the launcher asks for it or
dies in any way. Then, and when the server ends on its own, it kills what the server left running and removes the
entries of /dev/shm that start with PREFIX. It exits with the server's exit status (128 + n for signal n).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_POLL_S = 0.1
_LOOK_S = 0.5
_DEAD_S = 2.0
_STOPPED_S = 10.0
_INSTANCE = re.compile(r"\w+_\d+_\d+")  # as Triton numbers the instances of a model
_PR_SET_PDEATHSIG = 1
_IN_ATTRIB, _IN_CREATE = 0x4, 0x100


def sweep(prefix: str) -> list[str]:
    """Remove the entries of /dev/shm whose names start with ``prefix``, and return these names.

    Raises:
        ValueError: the prefix is empty.
    """
    found = _entries(prefix)
    for entry in found:
        entry.unlink(missing_ok=True)
    return [entry.name for entry in found]


def close_to_others(prefix: str) -> None:
    """Let only their owner read and write the entries of /dev/shm whose names start with ``prefix``.

    The stubs make them readable by everyone, whatever the umask is.

    Raises:
        ValueError: the prefix is empty.
    """
    for entry in _entries(prefix):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat().st_mode & 0o077:
                entry.chmod(0o600)


def _watch() -> int | None:
    """A file descriptor that is readable after each change of an entry of /dev/shm; None if there is no such thing.

    Looking only now and then would leave entries open to others for as long.
    """
    library = ctypes.CDLL(None, use_errno=True)
    watch: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0:
        return None
    if library.inotify_add_watch(watch, b"/dev/shm", _IN_ATTRIB | _IN_CREATE) < 0:
        os.close(watch)
        return None
    return watch


def _entries(prefix: str) -> list[Path]:
    if not prefix:
        raise ValueError("An empty prefix would match all of /dev/shm.")
    shared = Path("/dev/shm")
    return [entry for entry in shared.iterdir() if entry.name.startswith(prefix)] if shared.is_dir() else []


def kill_group(group: int) -> None:
    """Kill what is left of a process group, if anything is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _state(entry: Path) -> tuple[str, int]:
    """The state of a process, as the letter of proc(5), and its parent."""
    state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)


def parts(server: int) -> dict[int, tuple[str, str]]:
    """The child processes of a server: the state of each, and the instance of a model that it runs, if it says so."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = _state(entry)
            if parent == server:
                words = (entry / "cmdline").read_text(errors="replace").split("\0")
                names = [word for word in words if _INSTANCE.fullmatch(word)]
                found[int(entry.name)] = (state, names[-1] if names else "")
    return found


class Parts:
    """Watches a server and the processes of its models: Triton runs on, and reports ready, without one."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._names: dict[int, str] = {server: ""}
        self._bad: dict[tuple[int, str], float] = {}
        self._old = set(parts(server))

    def lost(self) -> str | None:
        """What died `_DEAD_S` ago (what Triton stops, it also reaps, and sooner), or was stopped `_STOPPED_S` ago."""
        now, seen = time.monotonic(), parts(self._server)
        self._names |= {pid: name for pid, (state, name) in seen.items() if state not in "ZX" and name}
        with contextlib.suppress(OSError):
            seen[self._server] = (_state(Path("/proc") / str(self._server))[0], "")
        # One that died before it was seen alive has no name any more.
        bad = {(pid, state) for pid, (state, _) in seen.items() if pid in self._names and state in "ZXT"}
        bad |= {(pid, state) for pid, (state, _) in seen.items() if pid not in self._old and state in "ZX"}
        self._bad = {key: self._bad.get(key, now) for key in bad}
        for (pid, state), since in self._bad.items():
            if state == "T" and now - since >= _STOPPED_S:
                return f"the process of {self._names[pid]} hangs" if self._names[pid] else "the server hangs"
            if state != "T" and now - since >= _DEAD_S and pid != self._server:
                name = self._names.get(pid)
                return f"the process of {name} died" if name else "a process of the server died"
        return None


def _wait_for_end(server: subprocess.Popen[bytes], prefix: str, watch: int | None) -> None:
    """Return when the server, one of its parts or stdin has ended; until then, close its /dev/shm entries to others."""
    watched, looked, start = Parts(server.pid), 0.0, prefix.encode()
    sources = [0] if watch is None else [0, watch]
    changes = b""
    while server.poll() is None:
        if not changes or start in changes:
            close_to_others(prefix)
        if time.monotonic() - looked > _LOOK_S:
            looked = time.monotonic()
            if lost := watched.lost():
                os.write(2, f"guard: {lost}; the server is stopped\n".encode())
                return
        readable, _, _ = select.select(sources, [], [], _POLL_S)
        if 0 in readable and not os.read(0, 4096):
            return
        changes = os.read(watch, 65536) if watch is not None and watch in readable else b""


def main() -> int:
    """Guard one server; see the module."""
    prefix, grace, log, _, *command = sys.argv[1:]
    # Keep the server's files private to its user.
    os.umask(0o077)
    # A Ctrl-C in the terminal is for the launcher, which then stops the guard.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.close(0))
    watch = _watch()
    with Path(log).open("ab") as out:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )
    os.write(1, f"{server.pid}\n".encode())
    os.close(1)
    try:
        with contextlib.suppress(OSError, ValueError):
            _wait_for_end(server, prefix, watch)
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(float(grace))
            except subprocess.TimeoutExpired:
                server.kill()
        status = server.wait()
    finally:
        kill_group(server.pid)
        sweep(prefix)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
