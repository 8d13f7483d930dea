"""The bell of a model: wakes whoever waits for something to happen, here or on another replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakMethod

from gradledger_server.errors import GradledgerError
from gradledger_server.replica.playback import Playback
from gradledger_server.replica.published import Published

POLL_S = 0.25  # how often those who wait ask whether another replica made a step
SOON_S = 0.002  # how soon, where another one did lately
LATELY_S = 60.0
PATIENCE = 0.25  # of the time without news: how much longer to wait before asking again

T = TypeVar("T")


class Bell:
    """On one event loop. `look` plays what other replicas have appended, and rings the bell.

    It rings for two things: entries that were played, and steps, or fates, that came of them.
    """

    def __init__(self, playback: Playback, look: Callable[[], Awaitable[Any]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._playback = playback
        self._look = WeakMethod(look)  # a model goes with its last user, and needs no collector
        self._stepped, self._played = asyncio.Event(), asyncio.Event()
        self._heard = playback.applied, playback.saved
        self._settled = playback.settled
        self._others = playback.heard
        self._others_at = float("-inf")  # when another replica's entry was last heard, on the loop's clock
        self.stepped_at = self._heard_at = self._loop.time()
        self._watchers = 0  # requests that wait for news, also from other replicas
        self._watch: asyncio.Task[None] | None = None
        self._released = False

    async def step(self, ask: Callable[[], Awaitable[T]], enough: Callable[[T], bool], wait_s: float) -> T:
        """What `ask` answers as soon as that is enough, asked again after each step; or after `wait_s`."""
        return await self._until(lambda: self._stepped, ask, enough, wait_s)

    async def entry(self, ask: Callable[[], Awaitable[T]], enough: Callable[[T], bool], wait_s: float) -> T:
        """The same, asked again whenever entries were played."""
        return await self._until(lambda: self._played, ask, enough, wait_s)

    def ring(self, before: Published, now: Published) -> None:
        """Wakes whoever waits for what has happened since the last call; `before` was published then."""
        playback, at = self._playback, self._loop.time()
        if self._heard != (playback.applied, playback.saved):
            self._heard, self._heard_at = (playback.applied, playback.saved), at
            if self._others != playback.heard:
                self._others, self._others_at = playback.heard, at
            self._played = self._rung(self._played)
        settled, self._settled = self._settled, playback.settled
        if now is not before or self._settled != settled:
            self.stepped_at = at
            self._stepped = self._rung(self._stepped)

    def release(self) -> None:
        """Nobody waits any more, now or later."""
        self._released = True
        self._stepped.set()
        self._played.set()

    async def _until(
        self,
        event: Callable[[], asyncio.Event],
        ask: Callable[[], Awaitable[T]],
        enough: Callable[[T], bool],
        wait_s: float,
    ) -> T:
        deadline = self._loop.time() + wait_s
        with self._listening():
            while True:
                happens = event()  # before the question: what happens meanwhile counts
                found = await ask()
                if enough(found) or not await self._before(deadline, happens):
                    return found

    async def _before(self, deadline: float, event: asyncio.Event) -> bool:
        """Waits for the event; False if the deadline on the loop's clock came first, or nobody may wait."""
        remaining = deadline - self._loop.time()
        if remaining <= 0 or self._released:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), remaining)
        return True

    def _rung(self, happened: asyncio.Event) -> asyncio.Event:
        """Wakes whoever waits for it; what to wait for from now on."""
        if not self._watchers:
            return happened
        happened.set()
        return asyncio.Event()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """One task asks for other replicas' news on behalf of everybody who waits."""
        self._watchers += 1
        if self._watch is None:
            self._watch = self._loop.create_task(self._ask_around())
        try:
            yield
        finally:
            self._watchers -= 1

    async def _ask_around(self) -> None:
        try:
            while self._watchers and (look := self._look()) is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._played.wait(), self._pause_s)
                    continue
                with contextlib.suppress(GradledgerError):
                    await look()
        finally:
            self._watch = None

    @property
    def _pause_s(self) -> float:
        """How long to wait before asking around: where other replicas take part, a share of the time without
        news, so that a round is answered late by that share of its own length at most."""
        now = self._loop.time()
        if now - self._others_at > LATELY_S:
            return POLL_S
        return min(POLL_S, max(SOON_S, PATIENCE * (now - self._heard_at)))
