"""Why a checkpoint is refused. Messages are one line each.

::

    CheckpointError(ValueError)         the file does not exist, or cannot be read
    ├── UnsafePickleError               a pickle uses a name or an operation that is not allowed
    ├── UnknownFormatError              an unknown container or network
    │   └── UnsupportedNetworkError     a known network that is not served: StyleGAN3, TensorFlow's, a discriminator
    ├── DamagedError                    cut short, or inconsistent
    └── TooLargeError                   larger than any generator's checkpoint
"""

from __future__ import annotations


class CheckpointError(ValueError):
    """The file does not exist, or cannot be read."""

    exit_code = 2  # of the command: bad input


class UnsafePickleError(CheckpointError):
    """A pickle uses a name or an operation that is not allowed."""


class UnknownFormatError(CheckpointError):
    """The container or the network is unknown."""


class UnsupportedNetworkError(UnknownFormatError):
    """The network is known, but not served."""


class DamagedError(CheckpointError):
    """The file is cut short or inconsistent."""


class TooLargeError(CheckpointError):
    """The file is larger, or declares more, than any generator's checkpoint."""
