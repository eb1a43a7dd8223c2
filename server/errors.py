"""What can go wrong here, each with one sentence for the user.

Exception tree::

    ServerError
    ├── AssemblyError   this machine or this Python cannot run the server of the wheel
    ├── SecretsError    a certificate, a key or a token is missing, or cannot be made
    └── StartError      the server did not become ready (carries the tail of its log)
        ├── ExitedError     its process ended before it was ready
        └── DeadlineError   it was not ready in time
"""


class ServerError(Exception):
    """The root of the errors of this package."""


class AssemblyError(ServerError):
    """This machine or this Python cannot run the server of the wheel."""


class SecretsError(ServerError):
    """A certificate, a key or a token is missing, or cannot be made."""


class StartError(ServerError):
    """The server did not become ready. ``log_tail`` holds the last lines of its log ('' when there is none)."""

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(f"{message}\n{log_tail}" if log_tail else message)
        self.log_tail = log_tail


class ExitedError(StartError):
    """The process of the server ended before it was ready."""


class DeadlineError(StartError):
    """The server was not ready in time."""
