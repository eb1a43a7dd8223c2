"""What is asked of a server, by whom, and for how long.

The package's logic is written once, as generators that yield calls and are sent the answers; ``run`` and ``run_async``
drive them over a transport. A transport is anything with ``send`` and ``close``: Triton over gRPC, or a fake in a test.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.errors import ParameterError, ServerTimeout, ServerUnavailable

T = TypeVar("T")
Array = NDArray[np.generic]
ATTEMPTS: Final = 4
FIRST_BACKOFF: Final = 0.1


@dataclass(frozen=True)
class Timeout:
    """Deadlines in seconds.

    Attributes:
        connect: for the first contact with the server.
        request: for each request after it, from the first attempt to the whole answer, retries included.
        patience: for a side-car that went away or takes nothing now, until the refinement gets on.
        refinement: for a whole refinement, waiting and queueing included; None is none.
    """

    connect: float = 5.0
    request: float = 60.0
    patience: float = 120.0
    refinement: float | None = None

    def __post_init__(self) -> None:
        for value in (self.connect, self.request, self.patience, self.refinement):
            if value is not None and not (math.isfinite(value) and 0 < value <= 86400):
                raise ParameterError(f"A timeout is a number of seconds above 0 and up to 86400, not {value:g}.")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as a model declares it: numpy dtype and dimensions without the batch; -1 is any."""

    dtype: np.dtype[Any]
    dims: tuple[int, ...]


@dataclass(frozen=True)
class ModelConfig:
    """What a served model takes and gives; ``max_batch`` 0 means that tensors have no batch dimension."""

    name: str
    max_batch: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class ServerInfo:
    """The server's own name and version."""

    name: str
    version: str


@dataclass(frozen=True)
class AskLive:
    """Is the server up? Answered by a bool."""


@dataclass(frozen=True)
class AskReady:
    """Is the server ready, or the named model? Answered by a bool."""

    model: str = ""


@dataclass(frozen=True)
class AskServer:
    """Who answers? Answered by ``ServerInfo``."""


@dataclass(frozen=True)
class AskVersions:
    """Which versions of the model are served? Answered by a tuple of strings."""

    model: str


@dataclass(frozen=True)
class AskConfig:
    """What does the model take and give? Answered by ``ModelConfig``."""

    model: str


@dataclass(frozen=True, eq=False)
class Infer:
    """Run the model. Answered by a dict of the named output tensors."""

    model: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


Call = AskLive | AskReady | AskServer | AskVersions | AskConfig | Infer


@dataclass(frozen=True)
class Attempt:
    """One sending of a call, given up after ``timeout`` seconds."""

    call: Call
    timeout: float


@dataclass(frozen=True)
class Pause:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True, eq=False)
class Work:
    """Compute something that takes long enough to block an event loop."""

    function: Callable[[], object]


Steps = Generator[Attempt | Pause | Work, Any, T]


class Transport(Protocol):
    """Sends calls and returns their answers; every failure is a ``ServerError``."""

    @property
    def url(self) -> str:
        """Address of the server, for messages."""

    def send(self, call: Call, *, timeout: float) -> object:
        """Send once and wait at most ``timeout`` seconds for the answer that the call's class names."""

    def close(self) -> None:
        """Let go of the connection."""


class AsyncTransport(Protocol):
    """``Transport`` with coroutines."""

    @property
    def url(self) -> str:
        """Address of the server, for messages."""

    async def send(self, call: Call, *, timeout: float) -> object:
        """Send once and wait at most ``timeout`` seconds for the answer that the call's class names."""

    async def close(self) -> None:
        """Let go of the connection."""


def persist(call: Call, *, seconds: float) -> Steps[Any]:
    """Send until there is an answer: again only where the server was unavailable, and within one deadline.

    Raises:
        ServerError: the last attempt's, when all of them failed; any other than ``ServerUnavailable`` at once.
    """
    deadline = time.monotonic() + seconds
    for attempt in range(ATTEMPTS):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise ServerTimeout(f"The server gave no answer within {seconds:g} seconds.")
        try:
            return (yield Attempt(call, remaining))
        except ServerUnavailable:
            # The random half keeps many clients of a restarted server from returning all at once.
            pause = FIRST_BACKOFF * 2**attempt * random.uniform(0.5, 1.0)
            if attempt == ATTEMPTS - 1 or time.monotonic() + pause >= deadline:
                raise
        yield Pause(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")


def run(steps: Steps[T], transport: Transport) -> T:
    """Drive the steps over a blocking transport and return their result."""

    def perform(step: Attempt | Pause | Work) -> object:
        match step:
            case Attempt(call, timeout):
                return transport.send(call, timeout=timeout)
            case Pause(seconds):
                time.sleep(seconds)
                return None
            case Work(function):
                return function()

    try:
        step = next(steps)
        while True:
            try:
                answer = perform(step)
            except Exception as problem:
                step = steps.throw(problem)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def run_async(steps: Steps[T], transport: AsyncTransport) -> T:
    """Drive the steps over an asynchronous transport and return their result."""

    async def perform(step: Attempt | Pause | Work) -> object:
        match step:
            case Attempt(call, timeout):
                return await transport.send(call, timeout=timeout)
            case Pause(seconds):
                await asyncio.sleep(seconds)
                return None
            case Work(function):
                return await asyncio.to_thread(function)

    try:
        step = next(steps)
        while True:
            try:
                answer = await perform(step)
            except Exception as problem:
                step = steps.throw(problem)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
