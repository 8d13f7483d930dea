"""A gate on a clock of the test's own: nothing takes time but waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable

from gradledger_server.api.gate import Gate

BEGUN, LATE = 1000.0, 1100.0


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes only when everybody waits for it."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        self.now = BEGUN

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for ever"
        self._clock.now += timeout
        assert self._clock.now < LATE, "nobody gets on"
        return super().select(0)


def timed(work: Callable[[Gate], Awaitable[None]]) -> None:
    """Runs `work` with a gate, on a clock of its own."""
    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(work(Gate()))  # type: ignore[arg-type]
