"""A pretended server of the domain: as a transport, and as a real gRPC endpoint; small images keep it quick."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from client.errors import ModelMissing, ServerError
from client.files import tensors
from client.triton.transport import ModelConfig, ServerInfo, TensorSpec
from protocol.cuts import prefix
from tests.client.calls import AskConfig, AskLive, AskReady, AskServer, AskVersions, Call, Infer, Recorded

# A shared machine may be slow at any moment.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GENERATOR = "0123456789abcdef"
SIDE = 32
PHOTO_SIDE = 64
F, M_PLUS, COARSE = (512, 16, 16), (12, 512), (4, 512)
SHAPES = {16: (F, M_PLUS), 8: ((512, 8, 8), (14, 512)), 4: ((512, 4, 4), (16, 512))}
F32, U8 = np.dtype(np.float32), np.dtype(np.uint8)
IMAGE, SMALL = (U8, (SIDE, SIDE, 3)), (U8, (PHOTO_SIDE, PHOTO_SIDE, 3))
# What a face of the fake finder is made of, around its middle, in pixels.
FACE = np.array([[-10, -10], [10, -10], [0, 0], [-8, 10], [8, 10]], np.float32)
MARK = (255, 0, 255)
MOST = 64
TABLE: dict[str, tuple[int, dict, dict]] = {
    "mapping": (64, {"z": (F32, (512,)), "psi": (F32, (1,))}, {"w": (F32, (512,))}),
    "coarse": (16, {"w": (F32, (4, 512))}, {"f": (F32, F)}),
    "faces": (
        0,
        {"image": (U8, (-1, -1, 3))},
        {"boxes": (F32, (MOST, 4)), "landmarks": (F32, (MOST, 5, 2)), "scores": (F32, (MOST,))},
    ),
}
for _cut, (_f, _w) in SHAPES.items():
    _code = {"f": (F32, _f), "w_m_plus": (F32, _w)}
    _edit = {**_code, "direction": (F32, _w), "strengths": (F32, (-1,))}
    _invert_in, _invert_out = {"image": SMALL}, {**_code, "reconstruction": IMAGE}
    if _cut == 16:  # edits move f, too
        _guide = {"w_coarse": (F32, COARSE), "transform": (F32, (2, 3))}
        _edit |= {**_guide, "direction": (F32, (16, 512))}
        _invert_in["transform"] = (F32, (2, 3))
        _invert_out["w_coarse"] = (F32, COARSE)
    TABLE |= {
        f"{prefix('', _cut)}_{role}".lstrip("_"): model
        for role, model in {
            "fine": (8, _code, {"image": IMAGE}),
            "encoder": (16, {"image": SMALL}, {"f": (F32, _f)}),
            "detail": (16, {"image": SMALL}, {"w_m_plus": (F32, _w)}),
            "invert": (8, _invert_in, _invert_out),
            "shift": (0, _edit, {"f_batch": (F32, (-1, *_f)), "w_m_plus_batch": (F32, (-1, *_w))}),
            "edit": (0, _edit, {"images": (U8, (-1, SIDE, SIDE, 3))}),
        }.items()
    }
FAITHFUL = {"faithful_f": (F32, F), "faithful_w_m_plus": (F32, M_PLUS)}


def cut_of(model: str) -> int:
    """The cut that a model's name says."""
    return next((cut for cut in (8, 4) if f"cut{cut}_" in model), 16)


def config(name: str, *, generator: str = GENERATOR, domain: str = "ffhq") -> ModelConfig:
    batch, inputs, outputs = TABLE[name.removeprefix(f"{domain}_")]
    cut = cut_of(name)
    own = {
        "generator": generator,
        "domain": domain,
        "cut": str(cut),
        "coarse_styles": str(16 - SHAPES[cut][1][0]),
        "face_finder": "faces",
    }
    return ModelConfig(
        name=name,
        max_batch=batch,
        inputs={key: TensorSpec(*value) for key, value in inputs.items()},
        outputs={key: TensorSpec(*value) for key, value in outputs.items()},
        parameters={"largest_image": "1920"} if name == "faces" else own,
    )


def compute(model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arithmetic that shows in the result which inputs it was given."""
    f_shape, styles = SHAPES[cut_of(model)]
    match model.rpartition("_")[2]:
        case "faces":
            return marked(inputs["image"])
        case "invert":
            value = np.float32(inputs["image"].mean() / 255)
            f = np.full((1, *f_shape), value, np.float32)
            return {
                "f": f,
                "w_m_plus": np.full((1, *styles), 0.5, np.float32),
                "reconstruction": np.full((1, SIDE, SIDE, 3), round(float(value) * 255), np.uint8),
                "w_coarse": np.full((1, *COARSE), 0.125, np.float32),
            }
        case "encoder":
            return {"f": np.full((1, *f_shape), 0.25, np.float32)}
        case "mapping":
            return {"w": inputs["z"] * inputs["psi"]}
        case "coarse":
            return {"f": np.resize(inputs["w"].sum(axis=1), (1, *F)).astype(np.float32)}
        case "fine":
            level = np.tanh(inputs["f"].mean() + inputs["w_m_plus"].std()) * 100 + 128
            return {"image": np.full((1, SIDE, SIDE, 3), level, np.uint8)}
        case "picture":
            level = np.tanh(inputs["faithful_f"].mean() + inputs["f"].mean()) * 100 + 128
            return {"image": np.full((1, SIDE, SIDE, 3), level, np.uint8)}
        case "edit":
            moved = inputs["strengths"] * np.abs(inputs["direction"]).max() * 10 + 128
            return {
                "images": np.ones((len(moved), SIDE, SIDE, 3), np.uint8) * moved.astype(np.uint8)[:, None, None, None]
            }
    raise AssertionError(model)


def add_faithful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `invert` give a faithful code, too, of ones, and reconstruct that."""
    before = compute

    def computed(model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = before(model, inputs)
        if model == "ffhq_invert":
            code = {"f": np.ones((1, *F), np.float32), "w_m_plus": np.ones((1, *M_PLUS), np.float32)}
            answers |= {f"faithful_{name}": value for name, value in code.items()}
            answers["reconstruction"] = before("ffhq_picture", answers)["image"]
        return answers

    batch, inputs, outputs = TABLE["invert"]
    monkeypatch.setitem(TABLE, "invert", (batch, inputs, {**outputs, **FAITHFUL}))
    monkeypatch.setitem(TABLE, "picture", (8, {**TABLE["fine"][1], **FAITHFUL}, {"image": IMAGE}))
    monkeypatch.setattr(sys.modules[__name__], "compute", computed)


def marked(image: np.ndarray) -> dict[str, np.ndarray]:
    """The faces of a photo, uint8 [H, W, 3]: an upright one around each pixel of the colour ``MARK``."""
    places = np.argwhere((image == MARK).all(axis=2))[:MOST, ::-1].astype(np.float32) + 0.5
    boxes, landmarks = np.zeros((MOST, 4), np.float32), np.zeros((MOST, 5, 2), np.float32)
    scores, count = np.zeros(MOST, np.float32), len(places)
    # The further to the right, the larger the box.
    size = 40 + places[:, :1] / 100
    boxes[:count], scores[:count] = np.concatenate([places - size / 2, size, size], axis=1), 0.9
    landmarks[:count] = places[:, None] + FACE
    return {"boxes": boxes, "landmarks": landmarks, "scores": scores}


def check_sentence(error: BaseException) -> None:
    """Fail unless the error is one printable line, as it stands behind ``error:``."""
    message = str(error)
    assert message.isprintable(), message
    assert not message.endswith((".", ":")), message
    assert message[0].islower() or not message[0].isalpha(), message
    assert len(message) > 20, message


class FakeTransport(Recorded):
    """Answers calls from the table; ``faults`` is asked first, and may raise or answer in the server's place."""

    url = "fake:8001"

    def __init__(
        self,
        *,
        generator: str = GENERATOR,
        missing: tuple[str, ...] = (),
        fault: Callable[[Call], object | None] | None = None,
        cuts: tuple[int, ...] = (16,),
    ) -> None:
        self.generator = generator
        self.cuts = cuts
        self.missing = missing
        self.fault = fault
        self.calls: list[Call] = []
        self.timeouts: list[float] = []
        self.closed = False

    def send(self, call: Call, *, timeout: float) -> object:
        self.calls.append(call)
        self.timeouts.append(timeout)
        if self.fault is not None and (answer := self.fault(call)) is not None:
            return answer
        model = getattr(call, "model", None) or ""
        unknown = model and model.removeprefix("ffhq_") not in TABLE
        if unknown or model in self.missing or cut_of(model) not in self.cuts:
            raise ModelMissing(f"the server at {self.url} does not serve the model {model}")
        match call:
            case AskLive() | AskReady():
                return True
            case AskServer():
                return ServerInfo("triton", "2.51.0")
            case AskVersions():
                return ("1",)
            case AskConfig(model):
                return config(model, generator=self.generator)
            case Infer(model, inputs, outputs):
                answers = compute(model, dict(inputs))
                return {name: answers[name] for name in outputs}
        raise ServerError("unknown call")

    def close(self) -> None:
        self.closed = True

    @property
    def inferences(self) -> list[Infer]:
        return [call for call in self.calls if isinstance(call, Infer)]


class FakeAsyncTransport(Recorded):
    """``FakeTransport`` with coroutines."""

    def __init__(self, inner: FakeTransport) -> None:
        self.inner = inner
        self.url = inner.url

    async def send(self, call: Call, *, timeout: float) -> object:
        return self.inner.send(call, timeout=timeout)

    async def close(self) -> None:
        self.inner.close()


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Triton's gRPC service over the same table; ``on_infer`` runs first and may abort the context."""

    def __init__(
        self, *, missing: tuple[str, ...] = (), on_infer: Callable | None = None, cuts: tuple[int, ...] = (16,)
    ) -> None:
        self.missing = missing
        self.cuts = cuts
        self.on_infer = on_infer
        self.inferences = 0

    def ServerLive(self, _request, _context):
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, _request, _context):
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, request, _context):
        return service_pb2.ModelReadyResponse(ready=request.name not in self.missing)

    def ServerMetadata(self, _request, _context):
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

    def ModelMetadata(self, request, context):
        self._find(request.name, context)
        return service_pb2.ModelMetadataResponse(name=request.name, versions=["1"])

    def ModelConfig(self, request, context):
        self._find(request.name, context)
        found = config(request.name)
        message = model_config_pb2.ModelConfig(name=found.name, max_batch_size=found.max_batch)
        types = {F32: model_config_pb2.TYPE_FP32, U8: model_config_pb2.TYPE_UINT8}
        for specs, add in ((found.inputs, message.input.add), (found.outputs, message.output.add)):
            for name, spec in specs.items():
                add(name=name, data_type=types[spec.dtype], dims=spec.dims)
        for key, value in found.parameters.items():
            message.parameters[key].string_value = value
        return service_pb2.ModelConfigResponse(config=message)

    def ModelInfer(self, request, context):
        self._find(request.model_name, context)
        self.inferences += 1
        if self.on_infer is not None:
            self.on_infer(self, context)
        kinds = {"FP32": np.float32, "UINT8": np.uint8}
        inputs = {
            tensor.name: np.frombuffer(raw, kinds[tensor.datatype]).reshape(tensor.shape)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        answers = compute(request.model_name, inputs)
        for name in (output.name for output in request.outputs):
            kind = "FP32" if answers[name].dtype == F32 else "UINT8"
            response.outputs.add(name=name, datatype=kind, shape=answers[name].shape)
            response.raw_output_contents.append(answers[name].tobytes())
        return response

    def _find(self, name, context):
        if name in self.missing or name.removeprefix("ffhq_") not in TABLE or cut_of(name) not in self.cuts:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")


def serving(servicer: service_pb2_grpc.GRPCInferenceServiceServicer, port: int = 0) -> AbstractContextManager[str]:
    """Serve a Triton; see :func:`listening`."""
    return listening(lambda server: service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server), port)


@contextmanager
def listening(
    add: Callable[[grpc.Server], object], port: int = 0, options: Sequence[tuple[str, int]] = ()
) -> Iterator[str]:
    """Serve what is added to a server on a port of this machine, a free one by default, and give its address."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=options)
    add(server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait()


def direction_file(path: Path, *, generator: str = GENERATOR, vector: np.ndarray | None = None, **extra: str) -> Path:
    """Write a direction along the first axis of W, or along ``vector``."""
    if vector is None:
        vector = np.eye(1, 512, dtype=np.float32)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"name": path.stem, "generator": generator, "description": "made up", **extra}
    tensors.save(path, {"direction": vector}, {key: value for key, value in metadata.items() if value})
    return path


if __name__ == "__main__":
    # A server whose process ends in the middle of its first inference.
    with serving(FakeTriton(on_infer=lambda _servicer, _context: os._exit(9))) as address:
        print(address, flush=True)
        threading.Event().wait(60)
        sys.exit(1)
