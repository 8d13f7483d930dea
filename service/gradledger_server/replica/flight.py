"""Small pushes that are applied while the log is still writing them down, answered when it has said so.

    post       3/6 log: the push is on its way to the server
    apply      4/6 apply, meanwhile (foresight.py), those of one turn of the loop together
    land       the server says what became of it: as foreseen, and the answer goes out

Nobody sees anything of a push before the log has it: the model's lock is held as long as one is in the air,
and what is published changes when the server's word is in. Where that is another word than was foreseen, the
state is thrown away, played from the log once more, and each push answered by what the log says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol
from weakref import WeakMethod

from gradledger_server.errors import GradledgerError
from gradledger_server.replica.answers import Answer
from gradledger_server.replica.draft import Draft
from gradledger_server.replica.hot import Hot
from gradledger_server.replica.published import Published
from gradledger_server.replica.quick import Quick
from gradledger_server.store.contract import SMALL_BYTES, Appended, AsyncLog, Outcome


class Listener(Protocol):
    """Who sent a push, and waits for its answer."""

    def foresee(self, answer: Answer) -> None:
        """What the answer will be, if nothing unforeseen happens; not to be told to anybody yet."""

    def hear(self, answer: Answer | Exception) -> None:
        """The answer: the very one that was foreseen, or another, or why there is none."""


class Flown:
    """One push in the air: what the log will say of it, and whom to tell."""

    __slots__ = ("answer", "draft", "foreseen", "listener")

    def __init__(self, draft: Draft, foreseen: Appended, listener: Listener) -> None:
        self.draft, self.foreseen, self.listener = draft, foreseen, listener
        self.answer: Answer | None = None  # once it is applied


class Flight:
    """Those of one model, on one event loop. `heard(before)` follows each change of what is published."""

    def __init__(self, hot: Hot, log: AsyncLog, quick: Quick, heard: Callable[[Published], None]) -> None:
        self._hot, self._log, self._quick = hot, log, quick
        self._heard = WeakMethod(heard)  # a model goes with its last user, and needs no collector
        self._loop = asyncio.get_running_loop()
        self._air: deque[Flown] = deque()
        self._ahead: dict[str | None, Flown] = {}  # posted and not applied yet, by who sent it
        self._strays: list[tuple[Flown, Outcome | GradledgerError]] = []
        self._search: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a push is in the air, or its fate is being looked for."""
        return bool(self._air or self._strays)

    @property
    def open(self) -> bool:
        """Whether a push may be one for here, as far as the model is concerned."""
        free = not self._strays and not self._hot.lock.wanted
        return free and self._quick.foresees and self._hot.model.small

    def push(self, draft: Draft, listener: Listener) -> bool:
        """Sends the push on its way. False: it is not for here, and nothing was done."""
        if self._ahead and self._follows(draft):
            self._apply()
        if not self._takes(draft):
            return False
        behind = self._air[-1].foreseen if self._air else None
        flown = Flown(draft, self._hot.foresight.foresee(draft, behind), listener)
        if not self._log.post(self._hot.epoch, draft.wish(), partial(self._land, flown)):
            if not self._air:
                self._hot.lock.give()
            return False
        self._air.append(flown)
        if not self._ahead:
            self._loop.call_soon(self._apply)  # when what was posted has left
        self._ahead[draft.identity] = flown
        return True

    def _follows(self, draft: Draft) -> bool:
        """Whether what is to be said of the push depends on those that are not applied yet."""
        bounded = self._hot.model.rounds.policy.staleness.max is not None
        return bounded or draft.identity in self._ahead

    def _takes(self, draft: Draft) -> bool:
        """Whether nothing can be said against the push; then the lock is held."""
        hot = self._hot
        small, next_one = draft.record.payload.nbytes <= SMALL_BYTES, hot.foresight.is_next(draft)
        if not (self.open and small and next_one) or draft.identity is None:
            return False
        if not self._air and not hot.lock.take():
            return False
        if draft.objection(hot.model) is None:
            return True
        if not self._air:
            hot.lock.give()
        return False

    def _apply(self) -> None:
        """Applies what was posted, while the server is at work on it."""
        ahead, self._ahead = self._ahead, {}
        for flown in ahead.values():
            try:
                flown.answer = self._hot.ahead(flown.draft, flown.foreseen)
            except Exception:
                self._quick.doubt()  # nothing follows; once the log has spoken, the state is played anew
                return
            flown.listener.foresee(flown.answer)

    def _land(self, flown: Flown, outcome: Outcome | GradledgerError) -> None:
        if flown.answer is None:
            self._apply()
        self._air.popleft()
        if flown.answer is None or self._strays or outcome != flown.foreseen:
            self._stray(flown, outcome)
            return
        flown.draft.laps.end("append")
        self._quick.landed()
        before, self._hot.published = self._hot.published, flown.answer.published
        if not self._air:
            self._hot.lock.give()
        flown.listener.hear(flown.answer)
        self._tell(before)

    def _tell(self, before: Published) -> None:
        if (heard := self._heard()) is not None:
            heard(before)

    def _stray(self, flown: Flown, outcome: Outcome | GradledgerError) -> None:
        """The log says something else, or nothing: so it will of all behind it."""
        self._quick.doubt()
        self._strays.append((flown, outcome))
        if not self._air:
            self._search = self._loop.create_task(self._find())

    async def _find(self) -> None:
        """Answers the strays by what the log says, and gives the model free."""
        before = self._hot.published
        said = [(f.draft, outcome) for f, outcome in self._strays if not isinstance(outcome, GradledgerError)]
        drafts, outcomes = [draft for draft, _ in said], [outcome for _, outcome in said]
        answers: Sequence[Answer | Exception]
        try:
            # Not on the replica's threads: all of them may be waiting for the lock that is held here.
            answers = await asyncio.to_thread(self._hot.anew, drafts, outcomes)
        except Exception as failure:
            answers = [failure] * len(said)
        finally:
            strays, self._strays = self._strays, []
            self._hot.lock.give()
        self._tell(before)
        found = iter(answers)
        for flown, outcome in strays:
            flown.listener.hear(outcome if isinstance(outcome, GradledgerError) else next(found))
