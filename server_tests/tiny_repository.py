"""Model repositories of tiny ONNX graphs and TorchScript modules, for tests that need a server and no generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto as T
from onnx import helper as h

TYPES = {
    "BOOL": T.BOOL,
    "UINT8": T.UINT8,
    "UINT16": T.UINT16,
    "UINT32": T.UINT32,
    "UINT64": T.UINT64,
    "INT8": T.INT8,
    "INT16": T.INT16,
    "INT32": T.INT32,
    "INT64": T.INT64,
    "FP16": T.FLOAT16,
    "FP32": T.FLOAT,
    "FP64": T.DOUBLE,
}
BATCHED = "dynamic_batching { max_queue_delay_microseconds: 300000 }\n"
Tensors = dict[str, tuple[str, Sequence[int]]]


def write(
    repository: Path,
    name: str,
    inputs: Tensors,
    outputs: Tensors,
    *,
    graph: onnx.GraphProto | None = None,
    batch: int = 0,
    backend: str = "onnxruntime",
    extra: str = "",
) -> Path:
    """Write one model and return its version folder; tensors map a name to its type and dims without the batch."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    if graph is not None:
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, version / "model.onnx")
    lines = [f'name: "{name}"', 'platform: "ensemble"' if backend == "ensemble" else f'backend: "{backend}"']
    lines.append(f"max_batch_size: {batch}")
    for key, tensors in (("input", inputs), ("output", outputs)):
        for tensor, (kind, dims) in tensors.items():
            lines.append(f'{key} [{{ name: "{tensor}" data_type: TYPE_{kind} dims: {list(dims)} }}]')
    if backend != "ensemble":
        lines.append("instance_group [{ count: 1 kind: KIND_AUTO }]")
    (repository / name / "config.pbtxt").write_text("\n".join(lines) + "\n" + extra)
    return version


def value(name: str, kind: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, TYPES[kind], list(shape))


def ints(name: str, *values: int) -> onnx.TensorProto:
    return h.make_tensor(name, T.INT64, [len(values)], values)


def add_one(repository: Path, name: str = "add_one", *, batch: int = 8, extra: str = BATCHED) -> None:
    """``y = x + 1`` on FP32 [N, 4]."""
    graph = h.make_graph(
        [h.make_node("Add", ["x", "one"], ["y"])],
        name,
        [value("x", "FP32", ["N", 4])],
        [value("y", "FP32", ["N", 4])],
        [h.make_tensor("one", T.FLOAT, [1], [1.0])],
    )
    write(repository, name, {"x": ("FP32", [4])}, {"y": ("FP32", [4])}, graph=graph, batch=batch, extra=extra)


def warm_add_one(repository: Path) -> None:
    """As `add_one`, with one warm-up request."""
    warm_up = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [4] zero_data: true } }'
    add_one(repository, "warm", extra=f'model_warmup [{{ name: "zeros" batch_size: 1 {warm_up} }}]\n')


def identity(repository: Path, name: str, kind: str, dims: Sequence[int], *, batch: int = 8) -> None:
    """``y = x`` for any type; -1 in ``dims`` for any size."""
    shape = ["N", *(f"D{place}" if dim < 0 else dim for place, dim in enumerate(dims))]
    graph = h.make_graph(
        [h.make_node("Identity", ["x"], ["y"])], name, [value("x", kind, shape)], [value("y", kind, shape)]
    )
    write(repository, name, {"x": (kind, dims)}, {"y": (kind, dims)}, graph=graph, batch=batch, extra=BATCHED)


def every_type(repository: Path) -> None:
    """``y_<type> = x_<type>`` [N, 3] for every type."""
    inputs: Tensors = {f"x_{kind}": (kind, [3]) for kind in TYPES}
    outputs: Tensors = {f"y_{kind}": (kind, [3]) for kind in TYPES}
    graph = h.make_graph(
        [h.make_node("Identity", [f"x_{kind}"], [f"y_{kind}"]) for kind in TYPES],
        "every_type",
        [value(f"x_{kind}", kind, ["N", 3]) for kind in TYPES],
        [value(f"y_{kind}", kind, ["N", 3]) for kind in TYPES],
    )
    write(repository, "every_type", inputs, outputs, graph=graph, batch=8, extra=BATCHED)


def pick(repository: Path) -> None:
    """``y = table[index]`` with ``table`` of four values: an index out of it raises inside the graph."""
    graph = h.make_graph(
        [h.make_node("Gather", ["table", "index"], ["y"])],
        "pick",
        [value("index", "INT64", ["N", 1])],
        [value("y", "FP32", ["N", 1])],
        [h.make_tensor("table", T.FLOAT, [4], [10.0, 11.0, 12.0, 13.0])],
    )
    write(repository, "pick", {"index": ("INT64", [1])}, {"y": ("FP32", [1])}, graph=graph, batch=8, extra=BATCHED)


def two_outputs(repository: Path) -> None:
    """``total = sum(x)``, ``double = 2x`` on FP32 [N, 4]."""
    graph = h.make_graph(
        [h.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=1), h.make_node("Add", ["x", "x"], ["double"])],
        "two_outputs",
        [value("x", "FP32", ["N", 4])],
        [value("total", "FP32", ["N", 1]), value("double", "FP32", ["N", 4])],
        [ints("axis", 1)],
    )
    outputs: Tensors = {"total": ("FP32", [1]), "double": ("FP32", [4])}
    write(repository, "two_outputs", {"x": ("FP32", [4])}, outputs, graph=graph, batch=8, extra=BATCHED)


def slow(repository: Path) -> None:
    """``y = x`` [1] after ``rounds`` products of 128 x 128 matrices: as slow as asked."""
    body = h.make_graph(
        [
            h.make_node("Identity", ["go"], ["go_on"]),
            h.make_node("MatMul", ["m", "matrix"], ["product"]),
            h.make_node("Tanh", ["product"], ["m_next"]),
        ],
        "body",
        [value("round", "INT64", []), value("go", "BOOL", []), value("m", "FP32", [128, 128])],
        [value("go_on", "BOOL", []), value("m_next", "FP32", [128, 128])],
    )
    graph = h.make_graph(
        [
            h.make_node("Expand", ["x", "square"], ["start"]),
            h.make_node("Squeeze", ["rounds"], ["trips"]),
            h.make_node("Loop", ["trips", "", "start"], ["end"], body=body),
            h.make_node("Slice", ["end", "zero", "one", "zero"], ["row"]),
            h.make_node("ReduceMean", ["row"], ["mean"], keepdims=0),
            h.make_node("Mul", ["mean", "nothing"], ["none"]),
            h.make_node("Add", ["x", "none"], ["y"]),
        ],
        "slow",
        [value("x", "FP32", [1]), value("rounds", "INT64", [1])],
        [value("y", "FP32", [1])],
        [
            h.make_tensor("matrix", T.FLOAT, [128, 128], [0.001] * 128 * 128),
            h.make_tensor("nothing", T.FLOAT, [], [0.0]),
            ints("square", 128, 128),
            ints("zero", 0),
            ints("one", 1),
        ],
    )
    write(repository, "slow", {"x": ("FP32", [1]), "rounds": ("INT64", [1])}, {"y": ("FP32", [1])}, graph=graph)


def edit(repository: Path) -> None:
    """An ensemble without batching, whose first step makes a batch of any size for its second, a batching model."""
    shift = h.make_graph(
        [
            h.make_node("Unsqueeze", ["strengths", "one"], ["column"]),
            h.make_node("Mul", ["column", "direction"], ["moves"]),
            h.make_node("Add", ["moves", "w"], ["w_batch"]),
        ],
        "shift",
        [value("w", "FP32", [3]), value("direction", "FP32", [3]), value("strengths", "FP32", ["K"])],
        [value("w_batch", "FP32", ["K", 3])],
        [ints("one", 1)],
    )
    inputs: Tensors = {"w": ("FP32", [3]), "direction": ("FP32", [3]), "strengths": ("FP32", [-1])}
    write(repository, "shift", inputs, {"w_batch": ("FP32", [-1, 3])}, graph=shift)
    fine = h.make_graph(
        [h.make_node("Mul", ["w", "w"], ["image"])],
        "fine",
        [value("w", "FP32", ["N", 3])],
        [value("image", "FP32", ["N", 3])],
    )
    write(repository, "fine", {"w": ("FP32", [3])}, {"image": ("FP32", [3])}, graph=fine, batch=8, extra=BATCHED)
    first = " ".join(f'input_map {{ key: "{name}" value: "{name}" }}' for name in inputs)
    steps = f"""ensemble_scheduling {{ step [
      {{ model_name: "shift" model_version: -1 {first} output_map {{ key: "w_batch" value: "ws" }} }},
      {{ model_name: "fine" model_version: -1 input_map {{ key: "w" value: "ws" }}
        output_map {{ key: "image" value: "images" }} }}
    ] }}
    """
    write(repository, "edit", inputs, {"images": ("FP32", [-1, 3])}, backend="ensemble", extra=steps)


def chain(repository: Path) -> None:
    """A batching ensemble of `two_outputs` and `add_one` that also gives what is between them."""
    steps = """ensemble_scheduling { step [
      { model_name: "two_outputs" model_version: -1 input_map { key: "x" value: "x" }
        output_map { key: "double" value: "double" } output_map { key: "total" value: "total" } },
      { model_name: "add_one" model_version: -1 input_map { key: "x" value: "double" }
        output_map { key: "y" value: "y" } }
    ] }
    """
    outputs: Tensors = {"double": ("FP32", [4]), "total": ("FP32", [1]), "y": ("FP32", [4])}
    write(repository, "chain", {"x": ("FP32", [4])}, outputs, batch=8, backend="ensemble", extra=steps)


def wrong_graph(repository: Path, kind: str, dims: Sequence[int], *, extra: str = "") -> None:
    """A config that says FP32 [4] over a graph of another type or shape."""
    graph = h.make_graph(
        [h.make_node("Identity", ["x"], ["y"])], "wrong", [value("x", kind, dims)], [value("y", kind, dims)]
    )
    write(repository, "wrong", {"x": ("FP32", [4])}, {"y": ("FP32", [4])}, graph=graph, extra=extra)
