"""A lock whose holder can see that somebody waits for it."""

from __future__ import annotations

import threading
from collections import deque


class Lock:
    """A context for threads. Who holds it for long, on an event loop, looks at `wanted` now and then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[None] = deque()  # appending and popping are one step each, a number's += is not

    @property
    def wanted(self) -> bool:
        """Whether a thread waits."""
        return bool(self._waiting)

    def take(self) -> bool:
        """Takes the lock if it is free; never waits."""
        return self._lock.acquire(blocking=False)

    def give(self) -> None:
        """Lets go of it."""
        self._lock.release()

    def __enter__(self) -> Lock:
        if not self.take():
            self._waiting.append(None)
            self._lock.acquire()
            self._waiting.pop()
        return self

    def __exit__(self, *_: object) -> None:
        self.give()
