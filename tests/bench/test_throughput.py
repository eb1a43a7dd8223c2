"""``bench throughput``: statistics, pairing and table, with fake clocks and sides of known speed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bench import throughput
from bench.__main__ import main
from bench.bare import Bare, ModelError
from bench.page import marks
from bench.pairing import REST_S, WARM_UPS, Comparison, Load, load, paired
from bench.throughput import MARK, ThroughputError, as_json, check_alike, check_local, table

onnx = pytest.importorskip("onnx")
RESULT = Comparison(
    model="ffhq_edit",
    in_flight=2,
    items=2,
    pairs=((Load(10, 1.0), Load(10, 1.25)), (Load(10, 2.0), Load(10, 2.0)), (Load(20, 1.0), Load(10, 1.0))),
)


class Clock:
    """Time that passes only in `sleep`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    throughput.add_arguments(parser)
    return parser.parse_args(arguments)


def test_load_ends_after_its_seconds() -> None:
    clock = Clock()
    # The third answer comes after the end, but was under way before it.
    assert load(lambda _: clock.sleep(0.375), in_flight=1, seconds=1, clock=clock) == Load(3, 1.125)


def test_load_ends_after_its_requests() -> None:
    clock = Clock()
    assert load(lambda _: clock.sleep(0.1), in_flight=1, seconds=100, requests=7, clock=clock).requests == 7
    assert load(lambda _: clock.sleep(0), in_flight=2, seconds=100, requests=8, clock=clock).requests == 8


def test_load_waits_for_one_answer() -> None:
    clock = Clock()
    assert load(lambda _: clock.sleep(5), in_flight=1, seconds=1, clock=clock) == Load(1, 5.0)
    assert load(lambda _: None, in_flight=2, seconds=0, clock=clock).requests == 2


def test_load_keeps_its_requests_in_flight_at_once() -> None:
    together = threading.Barrier(3, timeout=60)
    workers: list[int] = []

    def call(worker: int) -> None:
        workers.append(worker)
        together.wait()

    assert load(call, in_flight=3, seconds=100, requests=6, clock=Clock()).requests == 6
    assert sorted(workers) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("in_flight", [1, 2])
def test_load_passes_failures_on(in_flight: int) -> None:
    def call(worker: int) -> None:
        if worker == in_flight - 1:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        load(call, in_flight=in_flight, seconds=1, requests=4, clock=Clock())


def test_sides_alternate_and_rest_between() -> None:
    clock, order, rests = Clock(), [], []

    def side(name: str, seconds: float) -> Callable[[int], None]:
        def call(_: int) -> None:
            order.append(name)
            clock.sleep(seconds)

        return call

    def rest(seconds: float) -> None:
        rests.append(seconds)
        order.append("-")

    pairs = paired(side("b", 1), side("s", 2), in_flight=1, seconds=4, rounds=2, clock=clock, rest=rest)
    assert "".join(order) == "-b-s" * WARM_UPS + "-bbbb-ss" * 2
    assert set(rests) == {REST_S}
    assert pairs == ((Load(4, 4.0), Load(2, 4.0)),) * 2
    assert Comparison(model="m", in_flight=1, items=1, pairs=pairs).ratios == [0.5, 0.5]


def test_a_machine_that_slows_down_leaves_the_ratio_alone() -> None:
    pairs = tuple((Load(10, slow), Load(8, slow)) for slow in (1.0, 2.0, 7.0))
    assert Comparison(model="m", in_flight=1, items=1, pairs=pairs).ratios == pytest.approx([0.8, 0.8, 0.8])


def test_statistics() -> None:
    assert RESULT.ratios == pytest.approx([0.8, 1.0, 0.5])
    # Differences of 25, 0 and 50 ms: the median of the differences, not the difference of the medians (0).
    assert RESULT.overhead_ms == pytest.approx(25)
    assert RESULT.bare_rate == pytest.approx(20)
    assert RESULT.served_rate == pytest.approx(16)


def test_table_leads_with_the_ratio() -> None:
    lines = table([RESULT], "two cores.").splitlines()
    assert lines[2] == "| ffhq_edit | 2 | **0.80** | 0.50..1.00 | 25.00 | 16.0 | 20.0 |"
    assert lines[3:] == ["", "two cores."]
    assert len({line.count("|") for line in lines[:3]}) == 1


def test_json_holds_every_round() -> None:
    found = json.loads(as_json([RESULT], "two cores."))
    assert found["machine"] == "two cores."
    (row,) = found["results"]
    assert (row["model"], row["in_flight"], row["ratio"]) == ("ffhq_edit", 2, pytest.approx(0.8))
    assert row["ratios"] == pytest.approx([0.8, 1.0, 0.5])


@pytest.mark.parametrize("url", ["127.0.0.1:8001", "localhost:1", "[::1]:8001", "127.9.9.9:2"])
def test_servers_of_this_machine(url: str) -> None:
    check_local(url)


@pytest.mark.parametrize(
    "url", ["10.0.0.1:8001", "triton:8001", "127.0.0.1", "", "0.0.0.0:8001", "localhost.example:1"]
)
def test_servers_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(ThroughputError, match="on this machine"):
        check_local(url)


def test_sides_must_answer_alike() -> None:
    image = np.full((1, 4, 4, 3), 100, np.uint8)
    check_alike("m", {"image": image}, {"image": image + 1})
    with pytest.raises(ThroughputError, match="another image"):
        check_alike("m", {"image": image}, {"image": image + 20})
    with pytest.raises(ThroughputError, match="other outputs"):
        check_alike("m", {"image": image}, {"image": image[:, :2]})
    with pytest.raises(ThroughputError, match="other outputs"):
        check_alike("m", {"image": image}, {"picture": image})
    nan = np.full((1, 2), np.nan, np.float32)
    with pytest.raises(ThroughputError, match="another w"):
        check_alike("m", {"w": np.ones((1, 2), np.float32)}, {"w": nan})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """``twice`` (y = x + x), ``square`` (y = x * x), and their ensemble, a -> c = (2a)^2."""
    for name, operator, version in (
        ("twice", "Add", 1),
        ("twice", "Mul", 2),
        ("twice", "Add", 10),
        ("square", "Mul", 1),
    ):
        dims = ["n", 2]
        x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, dims) for n in "xy")
        graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x", "x"], ["y"])], name, [x], [y])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
        (tmp_path / name / str(version)).mkdir(parents=True)
        onnx.save(model, tmp_path / name / str(version) / "model.onnx")
        tensor = "{ name: '%s' data_type: TYPE_FP32 dims: 2 }"
        config = f"name: '{name}' max_batch_size: 8 backend: 'onnxruntime' input {tensor % 'x'} output {tensor % 'y'}"
        threads = "parameters { key: 'intra_op_thread_count' value { string_value: '1' } }"
        (tmp_path / name / "config.pbtxt").write_text(config + threads)
    steps = [("twice", "a", "b"), ("square", "b", "c")]
    for name, order in (("chain", steps), ("tangle", steps[::-1])):
        scheduling = "".join(
            f"step {{ model_name: '{model}' model_version: -1 input_map {{ key: 'x' value: '{source}' }} "
            f"output_map {{ key: 'y' value: '{target}' }} }}"
            for model, source, target in order
        )
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(
            f"name: '{name}' platform: 'ensemble' max_batch_size: 8 input {tensor % 'a'} output {tensor % 'c'} "
            f"ensemble_scheduling {{ {scheduling} }}"
        )
    return tmp_path


def test_bare_runs_the_newest_version(repository: Path) -> None:
    found = Bare(repository, "twice").run({"x": np.array([[3, 5]], np.float32)})
    assert found["y"].tolist() == [[6, 10]]


def test_bare_runs_the_chain_of_an_ensemble(repository: Path) -> None:
    found = Bare(repository, "chain").run({"a": np.array([[3, 5], [1, 0]], np.float32)})
    assert {name: value.tolist() for name, value in found.items()} == {"c": [[36, 100], [4, 0]]}


def test_bare_says_what_is_missing(repository: Path) -> None:
    with pytest.raises(ModelError, match="no model `absent`"):
        Bare(repository, "absent")
    with pytest.raises(ModelError, match="no step of ensemble `tangle` produces b"):
        Bare(repository, "tangle")
    graph = repository / "square" / "1" / "model.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(ModelError, match="cannot load"):
        Bare(repository, "chain")
    graph.unlink()
    with pytest.raises(ModelError, match="python -m export repository"):
        Bare(repository, "chain")
    (repository / "square" / "config.pbtxt").write_text("name: 1")
    with pytest.raises(ModelError, match="cannot read"):
        Bare(repository, "square")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Path:
    """Measurements without a server; gives the repository."""

    def compare(*_: object, **__: object) -> Iterator[Comparison]:
        yield RESULT

    monkeypatch.setattr(throughput, "MODELS", ("twice",))
    monkeypatch.setattr(throughput, "compare", compare)
    monkeypatch.setattr(throughput, "server_version", lambda _: "2.0")
    return repository


def test_run_prints_and_writes_the_table(measured: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("".join(marks(MARK)))
    options = ("--url", "127.0.0.1:1", "--repository", str(measured), "--models", "twice", "--write", str(page))
    throughput.run(parsed(*options))
    printed = capsys.readouterr().out
    assert "**0.80**" in printed and "Triton 2.0" in printed and "CPU cores" in printed
    assert printed.strip() in page.read_text()
    throughput.run(parsed(*options[:-2], "--json"))
    assert json.loads(capsys.readouterr().out)["results"][0]["ratio"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    "options",
    [
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--seconds", "61"),
        ("--rounds", "0"),
        ("--rounds", "101"),
        ("--url", "example.org:80"),
        ("--write", __file__ + ".absent"),
        ("--write", str(Path(__file__).with_name("__init__.py"))),
    ],
)
def test_bad_options_end_before_a_server_is_started(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(throughput, "LocalTriton", lambda _: pytest.fail("a server was started"))
    assert main(["throughput", *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and not printed.out


def test_no_server_at_the_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["throughput", "--url", "127.0.0.1:1"]) == 1
    assert "no answer from Triton at 127.0.0.1:1" in capsys.readouterr().err


def test_throughput_loads_no_torch() -> None:
    script = "import sys, bench.__main__, bench.throughput; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
