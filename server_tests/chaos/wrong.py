"""Malformed requests to both servers, one after the other, for as long as it may."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as wire
from tritonclient.grpc import service_pb2_grpc

REFINE = "/refine.v1.Refinement/Refine"


class Wrong(threading.Thread):
    """Sends them to Triton and the side-car at these ports, and counts the answers by their status."""

    def __init__(self, triton: int, sidecar: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.sent, self.statuses = 0, Counter[str]()
        self._draw, self._over = random.Random(seed), threading.Event()
        self._urls = f"127.0.0.1:{triton}", f"127.0.0.1:{sidecar}"

    def stop(self) -> None:
        self._over.set()

    def run(self) -> None:
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)]
        channels = [grpc.insecure_channel(url, options=options) for url in self._urls]
        calls: list[Callable[[], Any]] = [lambda: self._triton(channels[0]), lambda: self._sidecar(channels[1])]
        while not self._over.wait(self._draw.uniform(0, 0.2)):
            self.sent += 1
            try:
                self._draw.choice(calls)()
                self.statuses["OK"] += 1
            except grpc.RpcError as problem:
                self.statuses[problem.code().name] += 1  # type: ignore[attr-defined]

    def _triton(self, channel: grpc.Channel) -> None:
        draw = self._draw
        made = wire.ModelInferRequest(model_name=draw.choice(["ffhq_shift", "ffhq_fine", "ffhq_edit", "none", ""]))
        for name in draw.sample(["f", "w_m_plus", "direction", "strengths", "x"], draw.randrange(1, 5)):
            tensor = made.inputs.add(name=name, datatype=draw.choice(["FP32", "UINT8", "NOTHING"]))
            tensor.shape.extend(draw.choice([(1500,), (512, 16, 16), (1, 12, 512), (-1,), (2**40,), ()]))
            made.raw_input_contents.append(draw.randbytes(draw.choice([0, 1, 6000, 2**20])))
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(made, timeout=5)

    def _sidecar(self, channel: grpc.Channel) -> None:
        body, wait = self._draw.randbytes(self._draw.choice([0, 10, 10**5, 2**22])), self._draw.random() < 0.1

        def bodies() -> Iterator[bytes]:
            if wait:
                self._over.wait(3)
            yield body

        for _ in channel.stream_stream(REFINE)(bodies(), timeout=5):
            pass
