"""The exceptions of this package: each message is one line that says what is wrong, where, and what to do."""

from __future__ import annotations


class ClientError(Exception):
    """Base of the errors that this package raises."""


class ParameterError(ClientError):
    """A value of the caller is out of range: a seed, a psi, a strength, an address, a timeout, a tensor."""


class PhotoError(ClientError):
    """The photo cannot be read, is too large or too small, or does not hold the crop."""


class InversionError(ClientError):
    """The inversion file cannot be read or does not hold a whole inversion."""


class GeneratorMismatch(InversionError):
    """The inversion belongs to another generator, domain or cut than the server."""


class DirectionError(ClientError):
    """The direction is unknown, unreadable, or for another generator."""


class OutputError(ClientError):
    """A result cannot be written, or would replace another."""


class ServerError(ClientError):
    """The server failed to answer, or its answer cannot be used."""


class ServerUnavailable(ServerError):
    """No server answers at the address, or it went away during the request."""


class ServerTimeout(ServerError):
    """The answer did not come before the deadline."""


class ModelMissing(ServerError):
    """The server does not serve the model that the request needs."""


class ServerBusy(ServerError):
    """The server accepts nothing now: its queue is full, or it is starting or stopping."""


class AccessDenied(ServerError):
    """The server rejects this client, or this client does not trust the server."""


class RequestRejected(ServerError):
    """The server rejected the request."""


class RefinementDiverged(ServerError):
    """The loss of a refinement became NaN or infinite; its last checkpoint is the last finite one."""


class AnswerRefused(ServerError):
    """The server's answer has an unexpected shape or type, or numbers that are not finite."""
