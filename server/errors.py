"""Errors of this package, each with one sentence for the user.

Exception tree::

    LauncherError
    ├── AssemblyError   this machine or this Python cannot run the server of the wheel
    ├── SecretsError    a certificate, a key or a token is missing, or cannot be made
    └── LaunchError      the server did not become ready (carries the tail of its log)
        ├── ExitedError     its process ended before it was ready
        └── DeadlineError   it was not ready in time
"""


class LauncherError(Exception):
    """The root of the errors of this package."""


class AssemblyError(LauncherError):
    """This machine or this Python cannot run the server of the wheel."""


class SecretsError(LauncherError):
    """A certificate, a key or a token is missing, or cannot be made."""


class LaunchError(LauncherError):
    """The server did not become ready. ``log_tail`` holds the last lines of its log ('' when there is none)."""

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(f"{message}\n{log_tail}" if log_tail else message)
        self.log_tail = log_tail


class ExitedError(LaunchError):
    """The process of the server ended before it was ready."""


class DeadlineError(LaunchError):
    """The server was not ready in time."""
