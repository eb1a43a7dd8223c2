"""Asks each model for a sign of life: its process may be deadlocked, or spin for ever.

A probe is a request of zeros whose id makes the backends answer it without running the model. A model is stuck if it
answered neither its probe nor any other request for `patience` seconds, and its process did not compute. A process that
computes may have a long request: it gets ten times as long.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from server import guard

REQUEST_ID = "unaligned-probe"  # as in backends/common/batching.py
SERVER = ""  # stands for the server itself among the instances
_ROUNDS = 3  # in a patience; counted, because the launcher may have been stopped itself
_LONG = 10
_WORKS = 0.05  # of a core


@dataclass(frozen=True)
class Look:
    """What a round of probes saw of an instance of a model."""

    is_answered: bool
    requests: int  # that the model has answered
    processor: float  # seconds that its process has computed


class Patience:
    """Counts the rounds in which an instance gave no sign of life."""

    def __init__(self) -> None:
        self._last: dict[str, Look] = {}
        self._silent: dict[str, int] = {}
        self._idle: dict[str, int] = {}

    def stuck(self, looks: Mapping[str, Look], seconds: float) -> str | None:
        """Take what a round of so many seconds saw, and return the instance that is stuck, if one is."""
        for name, look in looks.items():
            last = self._last.get(name, look)
            self._last[name] = look
            if look.is_answered or look.requests != last.requests:
                self._silent[name] = self._idle[name] = 0
                continue
            works = look.processor - last.processor >= _WORKS * seconds
            self._silent[name] = self._silent.get(name, 0) + 1
            self._idle[name] = 0 if works else self._idle.get(name, 0) + 1
            if self._idle[name] >= _ROUNDS or self._silent[name] >= _ROUNDS * _LONG:
                return name
        return None


class Probe(threading.Thread):
    """Probes a server until `stop`, or until an instance is stuck.

    Args:
        pid: the server's process.
        connect: opens a ``tritonclient.grpc.InferenceServerClient``.
        headers: headers of requests for inference and configurations.
        admin: headers of requests for statistics.
        patience: seconds.
        lost: called with the instance that is stuck, such as ``ffhq_fine_0_0``.
    """

    def __init__(
        self,
        pid: int,
        connect: Callable[[], Any],
        *,
        headers: Mapping[str, str],
        admin: Mapping[str, str],
        patience: float,
        lost: Callable[[str], None],
    ) -> None:
        super().__init__(name="probe", daemon=True)
        self._pid, self._connect, self._headers, self._admin = pid, connect, headers, admin
        self._seconds, self._lost = patience / _ROUNDS, lost
        self._ended = threading.Event()
        self._inputs: dict[str, list[Any]] = {}

    def stop(self) -> None:
        """Start no further round."""
        self._ended.set()

    def run(self) -> None:
        """Probe, round after round."""
        patience, start = Patience(), time.monotonic()
        while not self._ended.wait(max(0.0, start + self._seconds - time.monotonic())):
            start = time.monotonic()
            looks = self._round()
            stuck = patience.stuck(looks, time.monotonic() - start)
            if stuck is not None and not self._ended.is_set():
                self._lost(stuck)
                return

    def _round(self) -> dict[str, Look]:
        from tritonclient.utils import InferenceServerException

        instances = {name: pid for pid, (_, name) in guard.parts(self._pid).items() if name}
        models = {name: name.rsplit("_", 2)[0] for name in instances}
        with contextlib.closing(self._connect()) as client:
            try:
                answered = self._ask(client, set(models.values()))
                found = client.get_inference_statistics(headers=self._admin, client_timeout=self._seconds).model_stats
            except InferenceServerException as error:
                # The guard deals with a server that ends.
                is_silent = error.status() == "StatusCode.DEADLINE_EXCEEDED"
                return {SERVER: Look(not is_silent, 0, _processor(self._pid))}
        requests = {one.name: one.inference_stats.success.count + one.inference_stats.fail.count for one in found}
        looks = {SERVER: Look(True, 0, 0.0)}
        for name, model in models.items():
            looks[name] = Look(model in answered, requests.get(model, 0), _processor(instances[name]))
        return looks

    def _ask(self, client: Any, models: Iterable[str]) -> set[str]:
        """Probe models, all at once, and return those that answer in time."""
        ends: SimpleQueue[tuple[str, str]] = SimpleQueue()

        def end(result: object, error: Any, *, model: str) -> None:
            del result
            ends.put((model, error.status() if error else ""))

        count = 0
        for count, model in enumerate(models, 1):  # noqa: B007
            if model not in self._inputs:
                self._inputs[model] = self._zeros(client, model)
            client.async_infer(
                model,
                self._inputs[model],
                lambda result, error, model=model: end(result, error, model=model),
                request_id=REQUEST_ID,
                headers=self._headers,
                client_timeout=self._seconds,
            )
        # An error is an answer, too.
        silent = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED", "StatusCode.UNAVAILABLE")
        return {model for model, status in (ends.get() for _ in range(count)) if status not in silent}

    def _zeros(self, client: Any, model: str) -> list[Any]:
        """The smallest request that a model takes."""
        import numpy as np
        from tritonclient import grpc
        from tritonclient.utils import triton_to_np_dtype

        config = client.get_model_config(model, as_json=True, headers=self._headers, client_timeout=self._seconds)
        inputs = []
        for tensor in config["config"]["input"]:
            dims = [max(1, int(dim)) for dim in tensor["dims"]]
            shape = [1, *dims] if config["config"].get("max_batch_size", 0) else dims
            kind = tensor["data_type"].removeprefix("TYPE_")
            inputs.append(grpc.InferInput(tensor["name"], shape, kind))
            inputs[-1].set_data_from_numpy(np.zeros(shape, triton_to_np_dtype(kind)))
        return inputs


def _processor(pid: int) -> float:
    """Seconds that a process has computed; 0 if it is gone."""
    with contextlib.suppress(OSError):
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
