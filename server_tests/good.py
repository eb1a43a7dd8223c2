"""Good requests in the background of bad ones."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Good:
    """Sends good requests from another thread, and counts right and wrong answers."""

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
