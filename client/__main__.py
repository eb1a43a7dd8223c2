"""``python -m client``, and the program ``client``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; Ctrl-C while it loads is no traceback either."""
    try:
        from client.cli import main as run
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
