"""Right requests beside wrong ones."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Good:
    """Asks right things on another connection until told to stop, and counts what was not answered right."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self.right, self.wrong = 0, 0
        self._ask, self._over = ask, threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._over.is_set():
            if self._ask():
                self.right += 1
            else:
                self.wrong += 1

    def __enter__(self) -> Good:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
