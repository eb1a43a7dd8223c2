"""``python -m client``, and the program ``client``."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

# Until the command line is there to say that it was interrupted, Ctrl-C just ends the process: no traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    """Run the command line."""
    from client.cli import main as run
    from client.exit_codes import INTERRUPTED, TERMINATED

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = run()
    if code in (INTERRUPTED, TERMINATED):
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End the process at once; all is written.

    A second Ctrl-C may have cut the closing of a channel short, and gRPC would wait for it at the interpreter's end.
    """
    from client.wire.request_id import SERVICE
    from protocol.tracing import tracing

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tracing(SERVICE).close()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
