"""Invert and edit unaligned photos with a generator served by Triton.

The command line is ``client`` (or ``python -m client``); this is the same as a library::

    from client import Inverter

    with Inverter("127.0.0.1:8001") as inverter:
        result = inverter.invert("photo.jpg")
        older = inverter.edit(result.inversion, "age", [3.0])
        for event in inverter.refine(result.inversion, "photo.jpg"):
            match event:
                case Progress():
                    print(event.step, event.terms.total)
                case Checkpoint() | Refined():
                    event.inversion.save("photo.inversion.safetensors")

``AsyncInverter`` has the same methods as coroutines, and ``refine`` as an asynchronous generator.

Exceptions, each with a message of one sentence::

    ClientError
    ├── ParameterError        a value given by the caller is out of its range
    ├── PhotoError            the photo cannot be read or cropped
    ├── InversionError        the inversion file cannot be read
    │   └── GeneratorMismatch it belongs to another generator
    ├── DirectionError        the direction is unknown, unreadable or of another generator
    ├── OutputError           a result cannot be written
    └── ServerError
        ├── ServerUnavailable no server answers, or it went away during the request
        ├── ServerTimeout     no answer before the deadline
        ├── ModelMissing      the server runs without the model
        ├── ServerBusy        it takes nothing now: its queue is full, or it is starting or stopping
        ├── AccessDenied      the server does not let this client in, or is not trusted
        ├── RequestRejected   the server refused the request
        ├── RefinementDiverged the loss of a refinement became NaN or infinite
        └── AnswerRefused     the server's answer cannot be used
"""

from __future__ import annotations

from client.api import AsyncInverter, Inverter
from client.errors import (
    AccessDenied,
    AnswerRefused,
    ClientError,
    DirectionError,
    GeneratorMismatch,
    InversionError,
    ModelMissing,
    OutputError,
    ParameterError,
    PhotoError,
    RefinementDiverged,
    RequestRejected,
    ServerBusy,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from client.files.direction import Direction
from client.files.inversion import Inversion
from client.files.photo import Crop, Photo
from client.sidecar.record import Refinement, RefineOptions
from client.sidecar.resume import Checkpoint, Refined, RefineEvent, Waiting
from client.sidecar.transport import AsyncRefineTransport, RefineTransport
from client.triton.session import InversionResult, ModelStatus, Status
from client.triton.transport import AsyncTransport, Timeout, Transport
from client.wire.access import Access
from protocol.messages import Preview, Progress, Queued
from protocol.terms import Metrics, Terms

__all__ = [
    "Access",
    "AccessDenied",
    "AnswerRefused",
    "AsyncInverter",
    "AsyncRefineTransport",
    "AsyncTransport",
    "Checkpoint",
    "ClientError",
    "Crop",
    "Direction",
    "DirectionError",
    "GeneratorMismatch",
    "Inversion",
    "InversionError",
    "InversionResult",
    "Inverter",
    "Metrics",
    "ModelMissing",
    "ModelStatus",
    "OutputError",
    "ParameterError",
    "Photo",
    "PhotoError",
    "Preview",
    "Progress",
    "Queued",
    "RefineEvent",
    "RefineOptions",
    "RefineTransport",
    "Refined",
    "Refinement",
    "RefinementDiverged",
    "RequestRejected",
    "ServerBusy",
    "ServerError",
    "ServerTimeout",
    "ServerUnavailable",
    "Status",
    "Terms",
    "Timeout",
    "Transport",
    "Waiting",
]
