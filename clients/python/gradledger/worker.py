"""Who pushes, and how often they have: the name that makes each push count once.

A push is named (worker, sequence) before it is first sent, and every retry carries the same name and the
same bytes, so the service knows it again however often it arrives.

    settled   a receipt came: the next push takes the next sequence
    in doubt  none came: the next push first asks the service which sequence it saw last
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable


class Worker:
    """A worker's name and its count. Without a name it gets one that nobody ever had."""

    def __init__(self, name: str | None = None) -> None:
        self._given = name
        self._begin()

    def _begin(self) -> None:
        self.name = self._given or f"w-{secrets.token_hex(8)}"
        self._last: int | None = None if self._given else 0
        self._pid = os.getpid()

    def next(self, ask: Callable[[str], int]) -> int:
        """The sequence of the next push; `ask(name)` tells the last one the service saw."""
        if self._pid != os.getpid():  # a fork: two processes must not count under one random name
            self._begin()
        if self._last is None:
            self._last = ask(self.name)
        return self._last + 1

    def take(self, name: str, last: int) -> None:
        """Pushes carry this name from here on; `last` is the sequence the service saw last."""
        if name != self.name:
            self._given = name
        self.name, self._last, self._pid = name, last, os.getpid()

    def settle(self, sequence: int) -> None:
        """A receipt came for `sequence`."""
        self._last = sequence

    def doubt(self) -> None:
        """No receipt came. A refusal leaves the count as it was, but asking is cheaper than being wrong."""
        self._last = None
