"""Invert and edit unaligned photos with a generator served by Triton.

The command line is ``client`` (or ``python -m client``); this is the same as a library::

    from client import Inverter

    with Inverter("127.0.0.1:8001") as inverter:
        result = inverter.invert("photo.jpg")
        older = inverter.edit(result.inversion, "age", [3.0])

``AsyncInverter`` has the same methods as coroutines.

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
        ├── RequestRejected   the server refused the request
        └── AnswerRefused     the server's answer cannot be used
"""

from __future__ import annotations

from client.directions import Direction
from client.errors import (
    AnswerRefused,
    ClientError,
    DirectionError,
    GeneratorMismatch,
    InversionError,
    ModelMissing,
    OutputError,
    ParameterError,
    PhotoError,
    RequestRejected,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from client.inversion import Inversion
from client.inverter import AsyncInverter, Inverter
from client.photo import Crop, Photo
from client.session import InversionResult, ModelStatus, Status
from client.transport import AsyncTransport, Timeout, Transport

__all__ = [
    "AnswerRefused",
    "AsyncInverter",
    "AsyncTransport",
    "ClientError",
    "Crop",
    "Direction",
    "DirectionError",
    "GeneratorMismatch",
    "Inversion",
    "InversionError",
    "InversionResult",
    "Inverter",
    "ModelMissing",
    "ModelStatus",
    "OutputError",
    "ParameterError",
    "Photo",
    "PhotoError",
    "RequestRejected",
    "ServerError",
    "ServerTimeout",
    "ServerUnavailable",
    "Status",
    "Timeout",
    "Transport",
]
