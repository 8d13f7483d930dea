"""Who begins a request goes on with it: what is unfinished holds memory, and a client may be gone for good.

A server reads until the end comes, and a machine that lost its power never sends one. So an unfinished
request must bring so much in every window of time, or it is given up, and its memory with it. One timer looks
at all connections; a request that arrives at once costs nothing.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

LEAST_BYTES_PER_S = 8 << 10  # of a mobile phone where there is hardly a network
LOOKS = 6  # in one window


class Sender(Protocol):
    """The other end of a connection."""

    heard_bytes: int  # what it has sent so far

    @property
    def owes(self) -> bool:
        """Whether it has begun a request, or never did, and nobody but it is waited for."""

    def give_up(self, window_s: float) -> None:
        """Hangs up on it."""


class Window(NamedTuple):
    """What had been heard when it began, on the loop's clock."""

    began: float
    heard_bytes: int


class Pace:
    """Of one event loop's connections; with a `window_s` of 0 anybody may be as slow as they like."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._windows: dict[Sender, Window | None] = {}
        self._next: asyncio.TimerHandle | None = None

    def watch(self, sender: Sender) -> None:
        """From now on it must go on with what it begins."""
        if self._window_s:
            self._windows[sender] = None
            if self._next is None:
                self._look_later()

    def forget(self, sender: Sender) -> None:
        """It is gone."""
        self._windows.pop(sender, None)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(self._window_s / LOOKS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = None
        for sender, window in list(self._windows.items()):
            self._windows[sender] = self._judged(sender, window, loop.time())
        if self._windows:
            self._look_later()

    def _judged(self, sender: Sender, window: Window | None, now: float) -> Window | None:
        if not sender.owes:
            return None
        present = Window(now, sender.heard_bytes)
        if window is None:
            return present
        lasted_s = now - window.began
        if lasted_s < self._window_s:
            return window
        if present.heard_bytes - window.heard_bytes < LEAST_BYTES_PER_S * lasted_s:
            sender.give_up(self._window_s)
        return present
