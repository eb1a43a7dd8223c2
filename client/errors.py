"""The exceptions of this package: each message is one sentence for the person who typed the command."""

from __future__ import annotations


class ClientError(Exception):
    """Base of everything that this package raises on purpose."""


class ParameterError(ClientError):
    """A value given by the caller is out of its range: a seed, a psi, a strength, an address, a timeout, a tensor."""


class PhotoError(ClientError):
    """The photo cannot be read, is too large or too small, or does not hold the crop."""


class InversionError(ClientError):
    """The inversion file cannot be read or does not hold a whole inversion."""


class GeneratorMismatch(InversionError):
    """The inversion belongs to another generator, domain or cut than the served one."""


class DirectionError(ClientError):
    """The direction is unknown, unreadable, or belongs to another generator."""


class OutputError(ClientError):
    """A result cannot be written where it was asked for."""


class ServerError(ClientError):
    """The server failed to answer, or its answer cannot be used."""


class ServerUnavailable(ServerError):
    """No server answers at the address, or it went away during the request."""


class ServerTimeout(ServerError):
    """The answer did not come before the deadline."""


class ModelMissing(ServerError):
    """The server runs without the model that the request needs."""


class ServerBusy(ServerError):
    """The server is there, but takes nothing now: its queue is full, or it is starting or stopping."""


class AccessDenied(ServerError):
    """The server does not let this client in, or this client does not trust the server."""


class RequestRejected(ServerError):
    """The server refused the request."""


class RefinementDiverged(ServerError):
    """The loss of a refinement became NaN or infinite; its last checkpoint is the last finite one."""


class AnswerRefused(ServerError):
    """The server's answer has an unexpected shape or type, or numbers that are not finite."""
