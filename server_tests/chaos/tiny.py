"""A domain of tiny models, and a tiny engine for the side-car: the real servers and clients, without the networks."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

GENERATOR, SIDE = "d1bdb5784feab6e0", 64
STEP_S = 0.02
# Runs the side-car; its options follow.
SIDECAR = (sys.executable, "-m", "server_tests.chaos.tiny", "side-car")


def repository(folder: Path) -> None:
    """Write the models of ``ffhq`` for the cut at 16: an image is its mean, times a ramp."""
    from onnx import TensorProto as T
    from onnx import helper as h
    from onnx import numpy_helper

    from server_tests.tiny_repository import ints, value, write

    def const(name: str, array: np.ndarray) -> Any:
        return numpy_helper.from_array(np.asarray(array, np.float32), name)

    def model(name: str, nodes: list[Any], inputs: Any, outputs: Any, constants: list[Any], batch: int) -> None:
        first: list[int | str] = ["N"] if batch else []

        def tensors(these: Any) -> list[Any]:
            return [
                value(t, kind, [*first, *(d if d > 0 else f"{t}{d}" for d in dims)])
                for t, (kind, dims) in these.items()
            ]

        graph = h.make_graph(nodes, name, tensors(inputs), tensors(outputs), constants)
        write(folder, f"ffhq_{name}", inputs, outputs, graph=graph, batch=batch, extra=EXTRA + BOUND * (not batch))

    node, image = h.make_node, {"image": ("UINT8", [SIDE, SIDE, 3])}
    f, w = {"f": ("FP32", [512, 16, 16])}, {"w_m_plus": ("FP32", [12, 512])}
    mean = [node("Cast", ["image"], ["x"], to=T.FLOAT), node("ReduceMean", ["x", "axes"], ["m"], keepdims=1)]
    axes, flat = ints("axes", 1, 2, 3), ints("flat", -1, 1, 1)
    scale = const("scale", np.full((1, 512, 16, 16), 1 / 255))
    model("encoder", [*mean, node("Mul", ["m", "scale"], ["f"])], image, f, [axes, scale], 16)
    styles = [node("Reshape", ["m", "flat"], ["n"]), node("Mul", ["n", "ones"], ["w_m_plus"])]
    model("detail", [*mean, *styles], image, w, [axes, flat, const("ones", np.full((1, 12, 512), 1 / 255))], 16)
    ramp = np.linspace(0, 200, SIDE * SIDE * 3).reshape(1, SIDE, SIDE, 3)
    nodes = [
        node("ReduceMean", ["f", "axes"], ["a"], keepdims=1),
        node("ReduceMean", ["w_m_plus", "two"], ["b"], keepdims=1),
        node("Reshape", ["b", "four"], ["c"]),
        node("Add", ["a", "c"], ["d"]),
        node("Mul", ["d", "ramp"], ["e"]),
        node("Clip", ["e", "low", "high"], ["g"]),
        node("Round", ["g"], ["r"]),
        node("Cast", ["r"], ["image"], to=T.UINT8),
    ]
    bounds = [const("low", np.array(0)), const("high", np.array(255)), const("ramp", ramp)]
    model("fine", nodes, f | w, image, [axes, ints("two", 1, 2), ints("four", -1, 1, 1, 1), *bounds], 8)
    nodes = [
        node("Shape", ["strengths"], ["k"]),
        node("Concat", ["k", "shape"], ["wanted"], axis=0),
        node("Expand", ["f", "wanted"], ["f_batch"]),
        node("Reshape", ["strengths", "flat"], ["s"]),
        node("Mul", ["s", "direction"], ["moves"]),
        node("Add", ["moves", "w_m_plus"], ["w_m_plus_batch"]),
    ]
    into = f | w | {"direction": ("FP32", [12, 512]), "strengths": ("FP32", [-1])}
    out = {"f_batch": ("FP32", [-1, 512, 16, 16]), "w_m_plus_batch": ("FP32", [-1, 12, 512])}
    model("shift", nodes, into, out, [ints("shape", 512, 16, 16), flat], 0)
    z, one = {"z": ("FP32", [512]), "psi": ("FP32", [1])}, {"w": ("FP32", [512])}
    model("mapping", [node("Mul", ["z", "psi"], ["w"])], z, one, [], 64)
    four = {"w": ("FP32", [4, 512])}
    nodes = [node("ReduceMean", ["w", "two"], ["a"], keepdims=1), node("Reshape", ["a", "four"], ["b"])]
    nodes.append(node("Mul", ["b", "scale"], ["f"]))
    model("coarse", nodes, four, f, [ints("two", 1, 2), ints("four", -1, 1, 1, 1), scale], 16)
    steps = (
        _step("encoder", {"image": "image"}, {"f": "f"}),
        _step("detail", {"image": "image"}, {"w_m_plus": "w_m_plus"}),
        _step("fine", {"f": "f", "w_m_plus": "w_m_plus"}, {"image": "reconstruction"}),
    )
    made = f | w | {"reconstruction": image["image"]}
    write(folder, "ffhq_invert", image, made, batch=8, backend="ensemble", extra=_ensemble(*steps))
    steps = (
        _step("shift", {name: name for name in into}, {name: name for name in out}),
        _step("fine", {"f": "f_batch", "w_m_plus": "w_m_plus_batch"}, {"image": "images"}),
    )
    images = {"images": ("UINT8", [-1, SIDE, SIDE, 3])}
    write(folder, "ffhq_edit", into, images, backend="ensemble", extra=_ensemble(*steps) + BOUND)


def _parameter(name: str, value: object) -> str:
    return f'parameters [{{ key: "{name}" value {{ string_value: "{value}" }} }}]\n'


EXTRA = "".join(
    _parameter(*pair) for pair in (("generator", GENERATOR), ("domain", "ffhq"), ("cut", 16), ("coarse_styles", 4))
)
BOUND = _parameter("largest_strengths", 8)


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    maps = [f'input_map {{ key: "{k}" value: "{v}" }}' for k, v in inputs.items()]
    maps += [f'output_map {{ key: "{k}" value: "{v}" }}' for k, v in outputs.items()]
    return f'{{ model_name: "ffhq_{model}" model_version: -1 {" ".join(maps)} }}'


def _ensemble(*steps: str) -> str:
    return f"ensemble_scheduling {{ step [ {', '.join(steps)} ] }}\n{EXTRA}"


class TinyJob:
    """f follows the photo's mean, with momentum."""

    group = "tiny"

    def __init__(self, start: Any, options: Any, resume: Any) -> None:
        at = resume or start
        self.f, self.w, self.goal = at.f.copy(), at.w_m_plus.copy(), np.float32(start.target.mean() / 255)
        self.momentum = resume.optimiser["momentum"].copy() if resume else np.zeros_like(self.f)
        self.step, self.seconds, self.steps = (resume.step, resume.seconds, 0) if resume else (0, 0.0, 0)
        self.steps = options.steps or 10
        self.reason: Any = "steps" if self.step >= self.steps else None

    @property
    def terms(self) -> Any:
        from protocol.terms import Terms

        return Terms(float(np.abs(self.f - self.goal).mean()), 0.0, 0.0, 0.0, 0.0) if self.step else None

    def advance(self) -> None:
        if self.reason is None:
            self.momentum = np.float32(0.5) * self.momentum + np.float32(0.1) * (self.goal - self.f)
            self.f = self.f + self.momentum
            self.step, self.seconds = self.step + 1, self.seconds + 0.5
            self.reason = "steps" if self.step >= self.steps else None

    def state(self) -> Any:
        from protocol.messages import State

        return State(self.step, self.seconds, self.f, self.w, {"momentum": self.momentum}, self.terms)


class TinyEngine:
    """The engine of the side-car."""

    domain, generator, resolution = "ffhq", GENERATOR, SIDE

    def open(self, start: Any, options: Any, resume: Any = None) -> TinyJob:
        from protocol.limits import ContractError

        if (start.f.shape, start.w_m_plus.shape) != ((512, 16, 16), (12, 512)):
            raise ContractError("The engine refuses these shapes.")
        if resume and (resume.f.shape != start.f.shape or "momentum" not in resume.optimiser):
            raise ContractError("The engine refuses this state.")
        return TinyJob(start, options, resume)

    def run(self, jobs: Sequence[Any], steps: int) -> None:
        for _ in range(steps):
            time.sleep(STEP_S)
            for job in jobs:
                job.advance()

    def preview(self, _state: Any) -> Any:
        return np.zeros((256, 256, 3), np.uint8)

    def judge(self, _start: Any, _state: Any) -> Any:
        from protocol.terms import Metrics

        return Metrics(stlpips_alex=0.5, psnr_256=20.0, psnr=19.0)

    def warm_up(self) -> None: ...


def main() -> None:
    """``side-car OPTIONS``, or ``start OPTIONS`` of the launcher with that side-car."""
    what, *arguments = sys.argv[1:]
    if what == "side-car":
        from sidecar import cli as service

        service._loader = lambda _options: TinyEngine  # type: ignore[assignment]
        service.main(arguments)
    from server import cli
    from server.sidecar import LocalSidecar

    cli.LocalSidecar = partial(LocalSidecar, program=SIDECAR)  # type: ignore[misc,assignment]
    cli._RESTARTS = 10**6
    sys.exit(cli.main([what, *arguments]))


if __name__ == "__main__":
    main()
