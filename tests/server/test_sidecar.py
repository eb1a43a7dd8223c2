"""The launcher of the side-car, with small programs in the side-car's place."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server import cli
from server.errors import DeadlineError, ExitedError, LaunchError
from server.sidecar import LocalSidecar

READY = """
import json, os, signal, sys, time
print("loading", flush=True)
print(json.dumps({"grpc": "127.0.0.1:7", "metrics": "http://127.0.0.1:8/metrics", "pid": os.getpid()}), flush=True)
"""
WAIT = "while True: time.sleep(0.05)\n"
Make = Callable[..., LocalSidecar]
Launched = Callable[[str], list[LocalSidecar]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A side-car whose program is a script."""
    monkeypatch.setenv("UNALIGNED_BUILD", str(tmp_path / "build"))

    def made(script: str, **options: Any) -> LocalSidecar:
        path = tmp_path / "program.py"
        path.write_text(script)
        return LocalSidecar(program=(sys.executable, str(path)), **{"timeout": 60, "grace": 5, **options})

    return made


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is not alive.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_is_ready_once_it_says_so_and_ends_with_the_block(make: Make) -> None:
    with make(READY + WAIT) as sidecar:
        assert (sidecar.url, sidecar.metrics_url) == ("127.0.0.1:7", "http://127.0.0.1:8/metrics")
        assert sidecar.is_running
        pid = sidecar.pid
        assert "loading" in sidecar.log_path.read_text()
    assert not is_alive(pid)
    assert not sidecar.is_running
    sidecar.stop()


def test_its_options_reach_the_program(make: Make, tmp_path: Path) -> None:
    script = f"import sys\nopen({str(tmp_path / 'argv')!r}, 'w').write(' '.join(sys.argv[1:]))\n" + READY + WAIT
    with make(script, port=1234, metrics_port=0, grace=7, arguments=["--compile=off"]):
        said = (tmp_path / "argv").read_text()
    assert said == "--json --address 127.0.0.1 --port 1234 --metrics-port 0 --grace 5 --compile=off"


def test_a_failing_start_is_reported_with_its_own_sentence(make: Make) -> None:
    script = "import sys\nprint('error: There is no file x.', file=sys.stderr)\nsys.exit(1)\n"
    with pytest.raises(ExitedError, match=r"ended before it was ready: There is no file x\."), make(script):
        pass


def test_a_start_that_takes_too_long_is_ended(make: Make) -> None:
    sidecar = make("import time\n" + WAIT, timeout=1)
    with pytest.raises(DeadlineError, match="not ready after 1 s"):
        sidecar.start()
    wait_until(lambda: not is_alive(sidecar.pid))


def test_one_that_does_not_stop_is_killed(make: Make) -> None:
    sidecar = make("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + WAIT, grace=0.5)
    sidecar.start()
    pid = sidecar.pid
    sidecar.stop()
    assert not is_alive(pid)


def test_an_end_by_itself_is_seen(make: Make) -> None:
    with make(READY + "sys.exit(7)\n") as sidecar:
        assert sidecar.wait() == 7
        assert not sidecar.is_running


def test_it_starts_once(make: Make) -> None:
    with make(READY + WAIT) as sidecar, pytest.raises(LaunchError, match="already started"):
        sidecar.launch()


class FakeTriton:
    """A Triton that is there at once."""

    url, http_url, metrics_url, id, pid = "127.0.0.1:1", None, None, "triton", 1
    log_path, repository = Path("triton.log"), Path("models")
    is_running = True

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __enter__(self) -> FakeTriton:
        return self

    def __exit__(self, *args: object) -> None:
        pass


@pytest.fixture
def launched(make: Make, monkeypatch: pytest.MonkeyPatch) -> Launched:
    """The command line, with a fake Triton and a script in the side-car's place."""
    # The command line installs its own handler.
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "LocalTriton", FakeTriton)

    def launch(script: str) -> list[LocalSidecar]:
        made: list[LocalSidecar] = []

        def instead(*, arguments: list[str], **options: Any) -> LocalSidecar:
            del options
            made.append(make(script, arguments=arguments))
            return made[-1]

        monkeypatch.setattr(cli, "LocalSidecar", instead)
        return made

    yield launch
    signal.signal(signal.SIGTERM, before)


def test_run_tells_the_command_where_both_are(launched: Launched, tmp_path: Path) -> None:
    made = launched(READY + WAIT)
    told = tmp_path / "told"
    script = (
        f"import os; open({str(told)!r}, 'w').write(os.environ['UNALIGNED_URL'] + os.environ['UNALIGNED_REFINE_URL'])"
    )
    assert cli.main(["run", "--sidecar", "--", sys.executable, "-c", script]) == 0
    assert told.read_text() == "127.0.0.1:1127.0.0.1:7"
    assert not made[0].is_running


def test_run_without_it_says_nothing_of_it(launched: Launched, monkeypatch: pytest.MonkeyPatch) -> None:
    made = launched(READY + WAIT)
    monkeypatch.delenv("UNALIGNED_REFINE_URL", raising=False)
    script = "import os, sys; sys.exit('UNALIGNED_REFINE_URL' in os.environ)"
    assert cli.main(["run", "--", sys.executable, "-c", script]) == 0
    assert made == []


def test_start_names_the_one_that_ended(launched: Launched, capsys: pytest.CaptureFixture[str]) -> None:
    launched(READY + "time.sleep(0.5)\nsys.exit(7)\n")
    assert cli.main(["start", "--sidecar", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["sidecar"]["grpc"] == "127.0.0.1:7"
    assert "The side-car ended with status 7" in err


def test_start_stops_the_side_car_where_triton_ended(
    launched: Launched, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = launched(READY + WAIT)
    monkeypatch.setattr(FakeTriton, "is_running", False)
    monkeypatch.setattr(FakeTriton, "wait", lambda _: 9, raising=False)
    assert cli.main(["start", "--sidecar"]) == 1
    out, err = capsys.readouterr()
    where = f"grpc 127.0.0.1:7, metrics http://127.0.0.1:8/metrics (log: {made[0].log_path})"
    assert out.splitlines()[1] == f"The side-car refines on {where}."
    assert err == "error: Triton ended with status 9; see triton.log\n"
    assert not made[0].is_running


def test_a_side_car_that_cannot_start_ends_the_command(launched: Launched, capsys: pytest.CaptureFixture[str]) -> None:
    launched("import sys\nprint('error: No weights.', file=sys.stderr)\nsys.exit(1)\n")
    assert cli.main(["run", "--sidecar", "--", sys.executable, "-c", "raise SystemExit(5)"]) == 1
    assert "error: the side-car ended before it was ready: No weights.\n" in capsys.readouterr().err
