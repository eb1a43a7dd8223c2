"""Servers from start to stop, and failures in between."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc

from assets.paths import project_root
from server import triton as launcher
from server.errors import DeadlineError, ExitedError, LaunchError
from server.triton import LocalTriton
from server_tests import tiny_repository as tiny
from server_tests.processes import eventually, group, is_alive, shared_memory, shm_prefix

Launch = Callable[..., LocalTriton]
Connect = Callable[[LocalTriton], grpc.InferenceServerClient]


def add_one(client: grpc.InferenceServerClient, model: str = "add_one") -> np.ndarray:
    x = grpc.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.zeros((1, 4), np.float32))
    return client.infer(model, [x], client_timeout=30).as_numpy("y")


def test_start_and_stop(repository: Path) -> None:
    tiny.add_one(repository)
    tiny.warm_add_one(repository)
    server = LocalTriton(repository)
    with server:
        assert server.is_running
        assert len({server.url, server.http_url, server.metrics_url}) == 3
        assert all(url.startswith("127.0.0.1:") for url in (server.url, server.http_url or ""))
        assert len(group(server.pid)) == 3
        assert len(shared_memory(server.shm_prefix)) == 2
        with grpc.InferenceServerClient(server.url) as client:
            assert client.get_server_metadata().name == server.id
            warm = client.get_inference_statistics("warm", headers=server.admin_headers).model_stats[0]
            assert warm.execution_count == 1
            cold = client.get_inference_statistics("add_one", headers=server.admin_headers).model_stats[0]
            assert cold.execution_count == 0
            np.testing.assert_array_equal(add_one(client), [[1] * 4])
        with pytest.raises(LaunchError, match="already started"):
            server.start()
    assert not server.is_running
    assert not group(server.pid)
    assert not shared_memory(server.shm_prefix)
    assert "All models are stopped" in server.log_path.read_text()
    server.stop()


def test_two_servers_side_by_side(tmp_path: Path, launch: Launch, connect: Connect) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        tiny.add_one(tmp_path / name, name)
    first, second = launch(tmp_path / "first"), launch(tmp_path / "second")
    assert first.url != second.url
    assert first.id != second.id
    client = connect(second)
    assert not client.is_model_ready("first")
    first.stop()
    assert shared_memory(second.shm_prefix)
    np.testing.assert_array_equal(add_one(client, "second"), [[1] * 4])
    with pytest.raises(LaunchError, match=f"grpc port {second.url.rpartition(':')[2]} of 127.0.0.1: it is in use"):
        launch(tmp_path / "first", grpc_port=int(second.url.rpartition(":")[2]))


def test_another_server_on_the_port_is_not_taken_for_this_one(
    repository: Path, launch: Launch, fake_tritonserver: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.add_one(repository)
    other = launch(repository)
    fake_tritonserver("exec sleep 1000")
    monkeypatch.setattr(launcher, "is_free", lambda *_: True)
    with pytest.raises(DeadlineError, match=f"another server, `{other.id}`, answers on"):
        launch(repository, grpc_port=int(other.url.rpartition(":")[2]), timeout=2)
    assert other.is_running


def test_a_port_that_is_snatched_is_replaced(
    repository: Path, launch: Launch, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.add_one(repository)
    snatched = launch(repository)
    port = int(snatched.url.rpartition(":")[2])
    ports = iter([port])
    free_port = launcher.free_port
    monkeypatch.setattr(launcher, "free_port", lambda *args: next(ports, 0) or free_port(*args))
    server = launch(repository)
    assert server.url != snatched.url
    np.testing.assert_array_equal(add_one(connect(server)), [[1] * 4])


def test_a_missing_graph_is_named(repository: Path) -> None:
    tiny.add_one(repository)
    (tiny.write(repository, "empty", {"x": ("FP32", [1])}, {"y": ("FP32", [1])}) / "model.onnx").unlink(missing_ok=True)
    server = LocalTriton(repository)
    with pytest.raises(ExitedError, match=r"could not load `empty`: there is no graph at .*model\.onnx") as caught:
        server.start()
    assert "failed to load all models" in caught.value.log_tail
    assert caught.value.log_tail in str(caught.value)
    assert not group(server.pid)
    assert not shared_memory(server.shm_prefix)


@pytest.mark.parametrize(
    ("kind", "dims", "parameter", "says"),
    [
        ("FP64", [4], "", r"input 'x' is TYPE_FP32 in the config and tensor\(double\) in the graph"),
        ("FP32", [5], "", r"input 'x' is \[4\] in the config and \[5\] in the graph"),
        ("FP32", [4], "many", r"the parameter intra_op_thread_count is 'many', not a count"),
    ],
)
def test_a_config_that_does_not_fit_its_graph_is_reported(
    repository: Path, launch: Launch, kind: str, dims: list[int], parameter: str, says: str
) -> None:
    threads = f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{parameter}" }} }}'
    tiny.wrong_graph(repository, kind, dims, extra=threads if parameter else "")
    with pytest.raises(ExitedError, match=says):
        launch(repository)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"address": "localhost"}, "`localhost` is not an IPv4 address"),
        ({"address": "192.0.2.1", "grpc_port": 8001}, "cannot listen on grpc port 8001"),
        ({"metrics_port": 70000}, "metrics port 70000 is out of range: expected 0 to 65535"),
    ],
)
def test_bad_options_are_reported(repository: Path, launch: Launch, options: dict[str, object], says: str) -> None:
    tiny.add_one(repository)
    with pytest.raises(LaunchError, match=says):
        launch(repository, **options)


def test_a_folder_without_models_is_reported(repository: Path, launch: Launch) -> None:
    with pytest.raises(LaunchError, match="no model in"):
        launch(repository)
    with pytest.raises(LaunchError, match="no model repository at"):
        launch(repository / "nowhere")


def test_the_tritonserver_on_path_is_preferred_and_its_early_exit_seen(
    repository: Path, launch: Launch, fake_tritonserver: Callable[[str], None]
) -> None:
    tiny.add_one(repository)
    fake_tritonserver('for a; do echo "argument $a"; done; exit 7')
    with pytest.raises(ExitedError, match=r"ended before it was ready \(exit status 7\)") as caught:
        launch(repository)
    arguments = caught.value.log_tail.splitlines()
    assert f"argument --model-repository={repository}" in arguments
    assert "argument --grpc-address=127.0.0.1" in arguments
    assert not any("--backend-directory" in argument for argument in arguments)


def test_a_server_that_cannot_be_started_is_reported(
    repository: Path, tmp_path: Path, launch: Launch, fake_tritonserver: Callable[[str], None]
) -> None:
    tiny.add_one(repository)
    fake_tritonserver("")
    program = tmp_path / "bin" / "tritonserver"
    program.write_text("#!/no/such/interpreter")
    with pytest.raises(LaunchError, match=f"cannot start `{program}`") as caught:
        launch(repository)
    assert "No such file or directory" in caught.value.log_tail


def test_a_server_that_is_never_ready_is_killed(repository: Path, fake_tritonserver: Callable[[str], None]) -> None:
    tiny.add_one(repository)
    fake_tritonserver("trap '' TERM; echo hanging; while :; do sleep 0.1; done")
    server = LocalTriton(repository, timeout=1, grace=0.5)
    with pytest.raises(DeadlineError, match="not ready after 1 s") as caught:
        server.start()
    assert caught.value.log_tail == "hanging"
    assert not group(server.pid)


def test_an_open_stream_does_not_keep_the_server_up(repository: Path, launch: Launch, connect: Connect) -> None:
    tiny.add_one(repository)
    server = launch(repository, grace=3)
    client = connect(server)
    client.start_stream(lambda **_: None)
    server.stop()
    assert not group(server.pid)
    assert not shared_memory(server.shm_prefix)
    client.stop_stream()


def test_a_killed_server_leaves_nothing(repository: Path, launch: Launch) -> None:
    tiny.add_one(repository)
    server = launch(repository)
    assert shared_memory(server.shm_prefix)
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait() == 137
    assert not server.is_running
    assert not shared_memory(server.shm_prefix)
    assert eventually(lambda: not group(server.pid))


def test_a_lost_server_is_started_again(repository: Path) -> None:
    tiny.add_one(repository)
    command = cli("start", "--restart", "--repository", repository, "--grpc-port", 0, "--grace", 0, "--json")
    with subprocess.Popen(
        command, cwd=project_root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        first = json.loads(process.stdout.readline())
        os.kill(int(first["pid"]), signal.SIGSTOP)
        again = json.loads(process.stdout.readline())
        assert (again["grpc"], again["pid"] != first["pid"]) == (first["grpc"], True)
        process.terminate()
        said = process.communicate(timeout=60)[1]
        assert said.startswith("error: Triton was stopped because it did not react; see ")
        assert said.endswith("\nThe servers are started again.\n")
        assert process.returncode == 143


def test_a_killed_guard_leaves_nothing(repository: Path, launch: Launch) -> None:
    tiny.add_one(repository)
    server = launch(repository)
    parent = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert eventually(lambda: not is_alive(server.pid))
    server.stop()
    assert eventually(lambda: not group(server.pid))
    assert not shared_memory(server.shm_prefix)


def cli(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "server", *map(str, arguments)]


def start_cli(repository: Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    command = cli("start", "--repository", repository, "--grpc-port", 0, "--grace", 0, "--json")
    process = subprocess.Popen(command, cwd=project_root(), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert select.select([process.stdout], [], [], 60)[0]
    return process, json.loads(process.stdout.readline())


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signalled_launcher_stops_its_server(repository: Path, sent: signal.Signals, status: int) -> None:
    tiny.add_one(repository)
    process, where = start_cli(repository)
    pid = int(str(where["pid"]))
    prefix = shm_prefix(pid)
    assert shared_memory(prefix)
    with process:
        assert is_alive(pid)
        assert where["http"] is None
        try:
            process.send_signal(sent)
            assert process.wait(60) == status
        finally:
            process.kill()
    assert eventually(lambda: not group(pid) and not shared_memory(prefix))


def test_run_gives_the_url_and_the_status_of_the_command(repository: Path) -> None:
    tiny.add_one(repository)
    script = (
        "import os, sys; from pathlib import Path; from tritonclient import grpc; "
        "name = grpc.InferenceServerClient(os.environ['UNALIGNED_URL']).get_server_metadata().name; "
        "lines = [path.read_bytes().split(b'\\0') for path in Path('/proc').glob('[0-9]*/cmdline')]; "
        "line = next(line for line in lines if f'--id={name}'.encode() in line); "
        "print(name, next(w for w in line if b'shm-region-prefix-name=' in w).decode().rpartition('=')[2]); sys.exit(3)"
    )
    command = cli("run", "--repository", repository, "--grace", 0, "--", sys.executable, "-c", script)
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3, done.stderr
    name, prefix = done.stdout.split()
    assert name.startswith("unaligned-")
    assert prefix.startswith("unaligned-shm-")
    assert not shared_memory(prefix)


def test_run_fails_with_one_line(repository: Path) -> None:
    for arguments, status, says in (
        (("run", "--repository", repository, "--", "no-such-command"), 127, "no command `no-such-command` on PATH"),
        (
            ("run", "--repository", repository, "--", "true"),
            1,
            f"no model in `{repository}`: build the repository with `make invert`",
        ),
    ):
        done = subprocess.run(cli(*arguments), cwd=project_root(), capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert done.stderr == f"error: {says}\n"
