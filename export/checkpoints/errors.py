"""Why a checkpoint is refused; one sentence each.

::

    CheckpointError(ValueError)         there is no such file, or it cannot be read
    ├── UnsafePickleError               a pickle names or does something that is not in the table
    ├── UnknownFormatError              no container or network that is known here
    │   └── UnsupportedNetworkError     a network that is known and not served: StyleGAN3, TensorFlow's, a discriminator
    ├── DamagedError                    cut short, or it contradicts itself
    └── TooLargeError                   more than a generator's checkpoint holds
"""

from __future__ import annotations


class CheckpointError(ValueError):
    """There is no such file, or it cannot be read."""

    exit_code = 2  # of a command that ends by it: bad input


class UnsafePickleError(CheckpointError):
    """A pickle names or does something that is not in the table."""


class UnknownFormatError(CheckpointError):
    """The file is no container, or holds no network, that is known here."""


class UnsupportedNetworkError(UnknownFormatError):
    """The file holds a network that is recognised and not served."""


class DamagedError(CheckpointError):
    """The file is cut short or contradicts itself."""


class TooLargeError(CheckpointError):
    """The file holds or declares more than a generator's checkpoint does."""
