"""What a transport was asked, as records: fakes keep them, and tests replay them on real transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.triton.transport import Array


@dataclass(frozen=True)
class AskLive:
    """Is the server up?"""


@dataclass(frozen=True)
class AskReady:
    """Is the server ready, or the named model?"""

    model: str = ""


@dataclass(frozen=True)
class AskServer:
    """Who answers?"""


@dataclass(frozen=True)
class AskVersions:
    """Which versions of the model are served?"""

    model: str


@dataclass(frozen=True)
class AskConfig:
    """What does the model take and return?"""

    model: str


@dataclass(frozen=True, eq=False)
class Infer:
    """Run the model."""

    model: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


Call = AskLive | AskReady | AskServer | AskVersions | AskConfig | Infer


def ask(transport: Any, call: Call, *, timeout: float) -> Any:
    """Ask a transport what a record says; a coroutine for an asynchronous one."""
    match call:
        case AskLive():
            return transport.live(timeout=timeout)
        case AskReady(model):
            return transport.ready(model, timeout=timeout)
        case AskServer():
            return transport.server(timeout=timeout)
        case AskVersions(model):
            return transport.versions(model, timeout=timeout)
        case AskConfig(model):
            return transport.config(model, timeout=timeout)
        case Infer(model, inputs, outputs):
            return transport.infer(model, inputs, outputs, timeout=timeout)


class Recorded:
    """A transport whose methods make records, and leave the answers to ``send``."""

    def send(self, call: Call, *, timeout: float) -> Any:
        raise NotImplementedError

    def live(self, *, timeout):
        return self.send(AskLive(), timeout=timeout)

    def ready(self, model="", *, timeout):
        return self.send(AskReady(model), timeout=timeout)

    def server(self, *, timeout):
        return self.send(AskServer(), timeout=timeout)

    def versions(self, model, *, timeout):
        return self.send(AskVersions(model), timeout=timeout)

    def config(self, model, *, timeout):
        return self.send(AskConfig(model), timeout=timeout)

    def infer(self, model, inputs, outputs, *, timeout):
        return self.send(Infer(model, inputs, tuple(outputs)), timeout=timeout)
