"""The model repository: configurations, graphs, and that nothing is built twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from assets.paths import REPOSITORY, detail_file, generator_file, looks_file, pnorm_file
from export import generator
from export.__main__ import COMMANDS, main
from export.generator import fingerprint, load_generator
from export.serve import graphs, repository
from export.serve.exporters import to_onnx, to_torchscript
from export.serve.graph import Graph, received, sent
from export.serve.graphs import DetailGraph, ShiftGraph
from export.serve.triton_config import EnsembleStep, ServedModel, Tensor, parse
from export.serve.variant import PLAIN
from export.serve.verify import (
    Arrays,
    VerifyError,
    asked,
    by_onnxruntime,
    by_torch,
    by_torchscript,
    compare,
    inputs,
    table,
)
from networks.generator_file import GeneratorError
from networks.learned_file import load_detail
from networks.pnorm import load_pnorm

built = pytest.mark.skipif(not PLAIN.file("ffhq_fine").exists(), reason="the graphs are not built: make invert")
TWO_LOOKS = looks_file("ffhq", 16).exists()
MODELS = 24 + TWO_LOOKS
OWN = ("mapping", "coarse", "fine", "encoder", "detail", "styles", "preview", "picture", "shift")
ROLES = OWN + TWO_LOOKS * ("looks",)
EIGHT_BITS = ("looks", "picture", "styles")

tensors = st.builds(
    Tensor,
    name=st.sampled_from(["a", "b"]),
    dtype=st.sampled_from(["float32", "uint8"]),
    dims=st.lists(st.integers(1, 2048), min_size=1, max_size=4).map(tuple),
)


@settings(deadline=None)
@given(source=tensors, target=tensors, batch=st.integers(0, 64), instances=st.integers(1, 4), runs=st.integers(0, 3))
def test_configurations_survive_text(source: Tensor, target: Tensor, batch: int, instances: int, runs: int) -> None:
    config = ServedModel(
        name="m", inputs=(source,), outputs=(target,), max_batch_size=batch, parameters={"cut": "16", "domain": "d"},
        backend="onnxruntime", instances=instances, warmup_runs=runs,
    )  # fmt: skip
    message = parse(config.text())
    assert message == config.message()
    assert tuple(message.input[0].dims) == source.dims
    assert message.instance_group[0].count == instances
    assert message.HasField("dynamic_batching") == (batch > 0)
    assert bool(message.model_warmup) == (runs > 0)
    assert {k: v.string_value for k, v in message.parameters.items()} == config.parameters


def test_ensembles_have_steps_and_no_backend() -> None:
    tensor = Tensor(name="x", dtype="float32", dims=(4,))
    step = EnsembleStep(model="inner", inputs={"a": "x"}, outputs={"b": "x"})
    config = ServedModel(name="e", inputs=(tensor,), outputs=(tensor,), max_batch_size=8, parameters={}, steps=(step,))
    message = parse(config.text())
    assert message.platform == "ensemble"
    assert not message.backend
    assert not message.instance_group
    assert dict(message.ensemble_scheduling.step[0].input_map) == {"a": "x"}


@built
def test_the_committed_configurations_are_what_the_graphs_give(tmp_path: Path) -> None:
    repository.write("ffhq", tmp_path)
    committed = {p.parent.name: p.read_text() for p in REPOSITORY.glob("*/config.pbtxt")}
    generated = {p.parent.name: p.read_text() for p in tmp_path.glob("*/config.pbtxt")}
    assert len(generated) == MODELS
    assert generated == committed


@built
def test_only_fields_that_every_backend_knows_are_used() -> None:
    for path in REPOSITORY.glob("*/config.pbtxt"):
        message = parse(path.read_text())
        assert message.platform == "ensemble" or message.backend == "onnxruntime"
        assert not message.default_model_filename
        assert all(group.kind == group.KIND_AUTO for group in message.instance_group)


def test_every_served_input_has_a_bound() -> None:
    for path in REPOSITORY.glob("*/config.pbtxt"):
        message = parse(path.read_text())
        for tensor in message.input:
            is_variable = any(dim < 0 for dim in tensor.dims)
            assert is_variable == (f"largest_{tensor.name}" in message.parameters), f"{message.name}: {tensor.name}"
        assert message.max_batch_size or {"largest_strengths", "largest_image"} & set(message.parameters)


@built
def test_a_second_build_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(graphs, "to_onnx", lambda graph, _module, target: written.append(f"{graph.name} {target}"))
    assert graphs.build("ffhq") == []
    assert written == []
    assert len(repository.write("ffhq", tmp_path)) == MODELS
    assert repository.write("ffhq", tmp_path) == []
    (tmp_path / "ffhq_shift" / "1" / "model.onnx").write_bytes(b"damaged")
    assert repository.write("ffhq", tmp_path) == ["ffhq_shift"]


def test_a_graph_is_stale_when_its_weights_change(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")
    graph = Graph(name="g", build=ShiftGraph, inputs={}, outputs=(), weights=(weights,))
    before = graphs.stamp(graph)
    assert graphs.stamp(graph) == before
    weights.write_bytes(b"2")
    assert graphs.stamp(graph) != before


def test_an_exported_graph_equals_torch_at_any_batch(tmp_path: Path) -> None:
    shift = next(g for g in graphs.graphs("ffhq") if g.name == "ffhq_cut8_shift")
    path, script = tmp_path / "shift.onnx", tmp_path / "shift.pt"
    to_onnx(shift, ShiftGraph().eval(), path)
    to_torchscript(shift, ShiftGraph().eval(), script)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shift.onnx", "shift.pt"]
    rng = np.random.default_rng(0)
    for count in (1, 5):
        feed = {
            "f": rng.standard_normal((512, 8, 8), np.float32),
            "w_m_plus": rng.standard_normal((14, 512), np.float32),
            "direction": rng.standard_normal((14, 512), np.float32),
            "strengths": rng.standard_normal(count, np.float32),
        }
        found = by_onnxruntime(path, feed)
        expected_by_torch = by_torch(ShiftGraph(), shift.outputs, feed)
        rows = compare("shift", "onnxruntime", expected_by_torch, found)
        rows += compare("shift", "pytorch", expected_by_torch, by_torchscript(script, shift.outputs, feed))
        assert all(row.passed for row in rows)
        expected = feed["w_m_plus"] + feed["strengths"][-1] * feed["direction"]
        np.testing.assert_allclose(found["w_m_plus_batch"][-1], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def feeds() -> dict[str, Arrays]:
    return inputs("ffhq", (16,))


@built
@pytest.mark.parametrize("role", ROLES)
def test_exported_graphs_equal_torch(role: str, feeds: dict[str, Arrays]) -> None:
    graph = next(g for g in graphs.graphs("ffhq") if g.name == f"ffhq_{role}")
    feed = feeds[graph.name]
    expected = by_torch(graph.build().eval(), graph.outputs, feed)
    least = asked(graph.name, {graph.name: graph}, PLAIN)
    assert (least is None) == (role not in EIGHT_BITS)
    rows = compare(graph.name, "onnxruntime", expected, by_onnxruntime(PLAIN.file(graph.name), feed), least=least)
    assert all(row.passed for row in rows), table(rows)


def test_images_survive_the_float_side() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    assert torch.equal(sent(received(levels)), levels)
    assert sent(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_verify_catches_a_wrong_output() -> None:
    reference = {"image": np.full((1, 2, 2, 3), 100, np.uint8)}
    assert compare("m", "e", reference, reference)[0].passed
    off = reference["image"].copy()
    off[0, 0, 0, 0] = 103
    row = compare("m", "e", reference, {"image": off})[0]
    assert not row.passed
    assert row.max_abs == 3
    assert "FAILED" in table([row, replace(row, max_abs=0)])
    with pytest.raises(VerifyError, match="image of m by e is float32"):
        compare("m", "e", reference, {"image": off.astype(np.float32)})
    with pytest.raises(VerifyError, match="image of m by e is nothing"):
        compare("m", "e", reference, {})


@built
def test_a_damaged_or_outdated_generator_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "generator.safetensors"
    copy.write_bytes(generator_file("ffhq").read_bytes())
    assert generator._is_current(copy)
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert not generator._is_current(copy)
    copy.write_bytes(data[:1000])
    assert not generator._is_current(copy)
    monkeypatch.setitem(generator.FILES, "MappingNetwork.xml", "0" * 64)
    assert not generator._is_current(generator_file("ffhq"))


@built
def test_the_head_reads_colours() -> None:
    """A sample's own styles are nearer to what the head says of it than to what it says of others."""
    loaded = load_generator("ffhq")
    w = loaded.mapping(torch.randn(3, 512, generator=torch.Generator().manual_seed(5)), 0.7)
    with torch.inference_mode():
        images = torch.cat([loaded.synthesis(x.expand(1, 16, -1)) for x in w[:, None]])
        graph = DetailGraph(load_detail(detail_file("ffhq", 16), generator=loaded.fingerprint))
        styles = graph(sent(F.avg_pool2d(images, 4)))
    assert styles.shape == (3, 12, 512)
    pnorm = load_pnorm(pnorm_file("ffhq"))
    first = slice(0, 32)  # the axes of the largest variances
    guess, true = pnorm(styles).mean(dim=1)[:, first], pnorm(w)[:, first]
    likeness = F.normalize(guess, dim=1) @ F.normalize(true, dim=1).T
    assert likeness.argmax(dim=1).tolist() == [0, 1, 2]


def test_fingerprints_follow_the_weights_but_not_the_estimated_mean() -> None:
    state = {"a": torch.ones(2), "mapping.w_avg": torch.zeros(1)}
    assert fingerprint(state) == fingerprint({**state, "mapping.w_avg": torch.ones(1)})
    assert fingerprint(state) != fingerprint({**state, "a": torch.zeros(2)})
    assert fingerprint(state) != fingerprint({"b": torch.ones(2)})


def test_graphs_have_the_opset_and_no_outside_data() -> None:
    paths = [p for p in (PLAIN.file(g.name) for g in graphs.graphs("ffhq")) if p.exists()]
    if not paths:
        pytest.skip("the graphs are not built: make invert")
    for path in paths:
        model = onnx.load(path, load_external_data=False)
        assert [o.version for o in model.opset_import if not o.domain] == [graphs.OPSET]
        assert not any(t.external_data for t in model.graph.initializer)


def test_a_missing_generator_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("export.generator.generator_file", lambda domain: generator_file(domain).with_name("absent"))
    with pytest.raises(GeneratorError, match="run `python -m export fetch`"):
        load_generator("ffhq")
    monkeypatch.setattr("export.serve.graphs.load_generator", load_generator)
    assert main(["repository", "--repository", "/nonexistent"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert COMMANDS[command].split()[0] in capsys.readouterr().out.lower()
