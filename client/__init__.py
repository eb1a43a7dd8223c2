"""Invert and edit unaligned photos with a generator served by Triton.

The command line is ``client`` (or ``python -m client``). The same as a library::

    from client import Inverter

    with Inverter("127.0.0.1:8001") as inverter:
        result = inverter.invert("photo.jpg")
        older = inverter.edit(result.inversion, "age", [2.0])
        for event in inverter.refine(result.inversion, "photo.jpg"):
            match event:
                case Progress():
                    print(event.step, event.terms.total)
                case Checkpoint() | Refined():
                    event.inversion.save("photo.inversion.safetensors")

``refine_all`` refines several faces of a photo at a time. ``AsyncInverter`` has the same methods as coroutines, and
``refine`` and ``refine_all`` as asynchronous generators.

Exceptions, each with a message of one line::

    ClientError
    ├── ParameterError          a value is out of range: a seed, a strength, an address, a timeout
    ├── PhotoError              the photo cannot be read or cropped
    ├── InversionError          the inversion file cannot be read
    │   └── GeneratorMismatch   it belongs to another generator
    ├── DirectionError          the direction is unknown, unreadable or for another generator
    ├── OutputError             a result cannot be written
    └── ServerError
        ├── ServerUnavailable   no server answers, or it went away during the request
        ├── ServerTimeout       no answer before the deadline
        ├── ModelMissing        the server does not serve the model
        ├── ServerBusy          the queue is full, or the server is starting or stopping
        ├── AccessDenied        the server rejects this client, or its certificate is not trusted
        ├── RequestRejected     the server rejected the request
        ├── RefinementDiverged  the loss of a refinement became NaN or infinite
        └── AnswerRefused       the server's answer is malformed
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from client.api import AsyncInverter as AsyncInverter
    from client.api import Inverter as Inverter
    from client.change.paste import Paste as Paste
    from client.change.paste import paste as paste
    from client.errors import AccessDenied as AccessDenied
    from client.errors import AnswerRefused as AnswerRefused
    from client.errors import ClientError as ClientError
    from client.errors import DirectionError as DirectionError
    from client.errors import GeneratorMismatch as GeneratorMismatch
    from client.errors import InversionError as InversionError
    from client.errors import ModelMissing as ModelMissing
    from client.errors import OutputError as OutputError
    from client.errors import ParameterError as ParameterError
    from client.errors import PhotoError as PhotoError
    from client.errors import RefinementDiverged as RefinementDiverged
    from client.errors import RequestRejected as RequestRejected
    from client.errors import ServerBusy as ServerBusy
    from client.errors import ServerError as ServerError
    from client.errors import ServerTimeout as ServerTimeout
    from client.errors import ServerUnavailable as ServerUnavailable
    from client.files.direction import Direction as Direction
    from client.files.inversion import Inversion as Inversion
    from client.files.photo import Photo as Photo
    from client.files.record import Refinement as Refinement
    from client.files.record import RefineOptions as RefineOptions
    from client.frames.choice import Framing as Framing
    from client.frames.choice import Wanted as Wanted
    from client.frames.face import Face as Face
    from client.frames.frame import Frame as Frame
    from client.sidecar.resume import Checkpoint as Checkpoint
    from client.sidecar.resume import Refined as Refined
    from client.sidecar.resume import RefineEvent as RefineEvent
    from client.sidecar.resume import Waiting as Waiting
    from client.sidecar.together import Failed as Failed
    from client.sidecar.transport import AsyncRefineTransport as AsyncRefineTransport
    from client.sidecar.transport import RefineTransport as RefineTransport
    from client.triton.status import InversionResult as InversionResult
    from client.triton.status import ModelStatus as ModelStatus
    from client.triton.status import Status as Status
    from client.triton.transport import AsyncTransport as AsyncTransport
    from client.triton.transport import Transport as Transport
    from client.wire.access import Access as Access
    from client.wire.timeout import Timeout as Timeout
    from protocol.messages import Preview as Preview
    from protocol.messages import Progress as Progress
    from protocol.messages import Queued as Queued
    from protocol.terms import Metrics as Metrics
    from protocol.terms import Terms as Terms

# Loaded on first use: `client --help` imports neither NumPy nor Pillow.
_MODULES: Final = {
    "client.api": "AsyncInverter Inverter",
    "client.change.paste": "Paste paste",
    "client.errors": "AccessDenied AnswerRefused ClientError DirectionError GeneratorMismatch InversionError "
    "ModelMissing OutputError ParameterError PhotoError RefinementDiverged RequestRejected ServerBusy ServerError "
    "ServerTimeout ServerUnavailable",
    "client.files.direction": "Direction",
    "client.files.inversion": "Inversion",
    "client.files.photo": "Photo",
    "client.frames.choice": "Framing Wanted",
    "client.frames.face": "Face",
    "client.frames.frame": "Frame",
    "client.files.record": "RefineOptions Refinement",
    "client.sidecar.resume": "Checkpoint RefineEvent Refined Waiting",
    "client.sidecar.together": "Failed",
    "client.sidecar.transport": "AsyncRefineTransport RefineTransport",
    "client.triton.status": "InversionResult ModelStatus Status",
    "client.triton.transport": "AsyncTransport Transport",
    "client.wire.access": "Access",
    "client.wire.timeout": "Timeout",
    "protocol.messages": "Preview Progress Queued",
    "protocol.terms": "Metrics Terms",
}
_PLACES: Final = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'client' has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value
