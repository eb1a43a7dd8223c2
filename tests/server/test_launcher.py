"""The launcher's parts that need no server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import types
import uuid
from pathlib import Path

import pytest

from server import cli, guard, log, ports, triton
from server.errors import LaunchError


def test_failed_models_are_read_from_a_log(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text(
        "I1122 lifecycle.cc:777] \"failed to load 'fine'\"\n"
        "E1122 lifecycle.cc:642] \"failed to load 'fine' version 1: Internal: FileNotFoundError: there is no graph at "
        '/a/model.onnx\\n\\nAt:\\n  /b/model.py(60): initialize\\n"\n'
        "E1122 lifecycle.cc:642] \"failed to load 'none' version 2: Not found: unable to load shared library: x.so\"\n"
    )
    assert log.failed_models(path) == {
        "fine": "there is no graph at /a/model.onnx",
        "none": "unable to load shared library: x.so",
    }
    assert log.failed_models(tmp_path / "absent") == {}


def test_the_tail_of_a_log_has_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("one\n+---+\n| a |\n\ntwo\nthree\n")
    assert log.tail(path, 2) == "two\nthree"
    assert log.tail(tmp_path / "absent") == ""


def test_a_taken_port_is_read_from_a_log(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("Unavailable - Socket '127.0.0.1:8001' already in use")
    assert log.says_port_taken(path)
    path.write_text("failed to load all models")
    assert not log.says_port_taken(path)


def test_old_logs_are_pruned(tmp_path: Path) -> None:
    for age in range(60):
        path = tmp_path / f"{age}.log"
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    log.prune(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {str(age) for age in range(50)}


def test_a_log_that_another_process_deletes_meanwhile_is_no_error(tmp_path: Path) -> None:
    # A link to nothing is listed and has no age, like a file that was deleted in between.
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    (tmp_path / "kept.log").touch()
    log.prune(tmp_path)
    assert (tmp_path / "kept.log").exists()


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        assert ports.is_answered("127.0.0.1", port)
    assert ports.is_free("127.0.0.1", port)
    assert not ports.is_answered("127.0.0.1", port)


def test_free_ports_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([20001, 20001, 20002, 20003])
    monkeypatch.setattr(ports.random, "randrange", lambda *_: next(drawn))
    monkeypatch.setattr(ports, "is_free", lambda _, port: port != 20002)
    taken: set[int] = set()
    assert [ports.free_port("127.0.0.1", taken) for _ in range(2)] == [20001, 20003]
    assert taken == {20001, 20003}


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_only_what_has_the_prefix_is_swept() -> None:
    prefix = f"unaligned-test-{uuid.uuid4().hex}"
    mine, other = Path("/dev/shm") / f"{prefix}-a", Path("/dev/shm") / f"other-{prefix}"
    mine.touch()
    other.touch()
    try:
        assert guard.sweep(prefix) == [mine.name]
        assert not mine.exists()
        assert other.exists()
    finally:
        other.unlink()
    with pytest.raises(ValueError, match="empty prefix"):
        guard.sweep("")


def test_only_what_has_the_prefix_is_closed_to_others() -> None:
    prefix = f"unaligned-test-{uuid.uuid4().hex}"
    mine, other = Path("/dev/shm") / f"{prefix}-a", Path("/dev/shm") / f"other-{prefix}"
    try:
        for entry in (mine, other):
            entry.touch()
            entry.chmod(0o644)
        guard.close_to_others(prefix)
        assert [entry.stat().st_mode & 0o777 for entry in (mine, other)] == [0o600, 0o644]
    finally:
        mine.unlink()
        other.unlink()
    with pytest.raises(ValueError, match="empty prefix"):
        guard.close_to_others("")


def run_guard(tmp_path: Path, *command: str, grace: float = 0.2, stop: bool = False, prefix: str = "") -> int:
    prefix = prefix or f"unaligned-{uuid.uuid4().hex}"
    arguments = [sys.executable, "-I", "-S", guard.__file__, prefix, str(grace)]
    process = subprocess.Popen(
        [*arguments, str(tmp_path / "log"), "--", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin
        assert process.stdout
        assert int(process.stdout.readline()) > 0
        if stop:
            while (tmp_path / "log").read_text() != "up\n":
                time.sleep(0.01)
            process.stdin.close()
        return process.wait(30)


def test_the_guard_passes_on_status_and_output(tmp_path: Path) -> None:
    assert run_guard(tmp_path, "sh", "-c", "echo out; echo err >&2; exit 5") == 5
    assert (tmp_path / "log").read_text() == "out\nerr\n"


def test_what_the_server_writes_is_private(tmp_path: Path) -> None:
    assert run_guard(tmp_path, "sh", "-c", "umask") == 0
    assert (tmp_path / "log").read_text() == "0077\n"


OPENED = """
import os, statistics, sys, time
waited = []
for number in range(11):
    path = f"/dev/shm/{sys.argv[1]}-{number}"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    time.sleep(0.05 + number / 100)
    os.chmod(path, 0o644)  # as Boost does, whatever the umask is
    began = time.monotonic()
    while os.stat(path).st_mode & 0o077 and time.monotonic() < began + 5:
        time.sleep(0.0005)
    waited.append(time.monotonic() - began)
print(statistics.median(waited))
"""


def test_entries_are_closed_as_soon_as_they_are_opened(tmp_path: Path) -> None:
    prefix = f"unaligned-test-{uuid.uuid4().hex}"
    assert run_guard(tmp_path, sys.executable, "-c", OPENED, prefix, prefix=prefix) == 0
    assert float((tmp_path / "log").read_text()) < 0.02
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))


def test_a_server_without_one_of_its_processes_is_stopped(tmp_path: Path) -> None:
    stub = [sys.executable, "-c", "import time; time.sleep(1)", "add_one_0_0"]
    script = f"import subprocess, time; child = subprocess.Popen({stub!r}); time.sleep(60)"
    assert run_guard(tmp_path, sys.executable, "-c", script) == 128 + 15


def test_the_guard_stops_its_command_when_its_input_ends(tmp_path: Path) -> None:
    assert run_guard(tmp_path, "sh", "-c", "echo up; exec sleep 1000", stop=True) == 128 + 15
    (tmp_path / "log").unlink()
    deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    assert run_guard(tmp_path, "sh", "-c", deaf, stop=True) == 128 + 9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start", "--grpc-port", "70000"], "'70000' is not a number from 0 to 65535"),
        (["start", "--timeout", "soon"], "'soon' is not a number of seconds"),
        (["run", "--grace", "-1", "--", "true"], "'-1' is not a number of seconds"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_a_wrong_command_line_is_reported(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_run_wants_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run"]) == 2
    assert capsys.readouterr().err == "error: no command to run: write it after `--`\n"


def test_the_tail_of_the_log_follows_the_sentence() -> None:
    assert str(LaunchError("It did not start.", "last line")) == "It did not start.\nlast line"
    assert str(LaunchError("It did not start.")) == "It did not start."


def test_the_package_pulls_in_neither_torch_nor_the_other_packages() -> None:
    script = (
        "import sys, server.cli, server.triton, assets.wheels; "
        "print([name for name in ('torch', 'client', 'export', 'networks', 'tritonclient') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_lost_model_is_read_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("I0101 ready\nguard: the process of ffhq_fine_0_0 died; the server is stopped\n")
    assert log.lost_part(tmp_path / "log") == "the process of model `ffhq_fine` died"
    (tmp_path / "log").write_text("guard: the process of ffhq_fine_0_0 hangs; the server is stopped\n")
    assert log.lost_part(tmp_path / "log") == "the process of model `ffhq_fine` did not react"
    (tmp_path / "log").write_text("guard: the server hangs; the server is stopped\n")
    assert log.lost_part(tmp_path / "log") == "it did not react"
    (tmp_path / "log").write_text("guard: a process of the server died; the server is stopped\n")
    assert log.lost_part(tmp_path / "log") == "one of its processes died"
    assert log.lost_part(tmp_path / "none") == ""


@pytest.mark.parametrize(("number", "says"), [(signal.SIGSTOP, "hangs"), (signal.SIGKILL, "died")])
def test_the_guard_sees_a_part_that_hangs_or_died(number: int, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_STOPPED_S", 0.3)
    monkeypatch.setattr(guard, "_DEAD_S", 0.3)
    # A child of this process, named as Triton names the processes of its models.
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)", "fine_0_0"]) as part:
        try:
            watched = guard.Parts(os.getpid())
            assert watched.lost() is None
            os.kill(part.pid, number)
            until = time.monotonic() + 10
            while (found := watched.lost()) is None and time.monotonic() < until:
                time.sleep(0.05)
            assert found == f"the process of fine_0_0 {says}"
        finally:
            part.kill()


def test_the_guard_sees_a_part_that_died_before_its_name_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_DEAD_S", 0.3)
    watched = guard.Parts(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "pass"]):
        until = time.monotonic() + 10
        while (found := watched.lost()) is None and time.monotonic() < until:
            time.sleep(0.05)
    assert found == "a process of the server died"


@pytest.mark.parametrize("odd", ["a b", "it's", "Zürich", "$HOME", "写真"])
def test_a_path_that_the_backend_cannot_read_is_refused_at_once(odd: str, tmp_path: Path) -> None:
    model = tmp_path / odd / "add_one"
    model.mkdir(parents=True)
    (model / "config.pbtxt").touch()
    with pytest.raises(LaunchError, match=r"cannot serve from `.*move it to a path of plain letters"):
        triton.LocalTriton(model.parent).start()


def test_little_shared_memory_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "add_one").mkdir()
    (tmp_path / "add_one/config.pbtxt").touch()
    real = os.statvfs("/dev/shm")
    small = types.SimpleNamespace(f_bavail=(64 << 20) // real.f_frsize, f_frsize=real.f_frsize)
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    with pytest.raises(LaunchError, match=r"^give the server more shared memory.*`--shm-size=1g`.*64 MiB free"):
        triton.LocalTriton(tmp_path).start()
