"""The exit codes of the command line."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
SERVER_TROUBLE: Final = 3
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
TERMINATED: Final = 143
HELP: Final = (
    "exit codes: 0 done; 1 some photos of a batch failed; 2 bad input or usage; 3 no server, or trouble with it; "
    "130 interrupted; 143 terminated"
)


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


def described(problem: BaseException) -> str:
    """Return what an exception says; of Ctrl-C and SIGTERM, which say nothing, what they did."""
    return str(problem).rstrip(".") or ("terminated" if isinstance(problem, Terminated) else "interrupted")
