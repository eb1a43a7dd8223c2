"""For all tests: a run in the background inherits an ignored SIGINT, and so would the programs that tests interrupt."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
