"""A hot model on the event loop: small pushes, and looks at it, without a thread's turn.

A turn costs more than everything else a small push needs. Where somebody is at work on the model, or another
replica's entries have to be played first, the answer is None and a thread has to do it.

A look asks the server where the log ends, unless nobody else can have written to it (`AsyncLog.tenure`): then
what is published is the latest, and the look is over before it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gradledger_server.errors import GradledgerError
from gradledger_server.replica.answers import Answer
from gradledger_server.replica.draft import Draft
from gradledger_server.replica.hot import Hot
from gradledger_server.replica.laps import end_all
from gradledger_server.replica.published import Published
from gradledger_server.replica.solitude import Solitude
from gradledger_server.store.contract import SMALL_BYTES, Appended, AsyncLog, Outcome

AT_ONCE = 64  # more pushes than that would keep everybody else's requests waiting


class Quick:
    """`hot` on one event loop, its log asked by `log`."""

    def __init__(self, hot: Hot, log: AsyncLog) -> None:
        self._hot, self._log = hot, log
        self._solitude = Solitude(hot.playback)
        self._latest_in: int | None = None  # the tenure in which what is published is the latest
        self._doubts = 0

    @property
    def is_latest(self) -> bool:
        """Whether what is published holds every push ever acknowledged, without asking anybody."""
        return self._latest_in is not None and self._latest_in == self._log.tenure

    @property
    def foresees(self) -> bool:
        """Whether it can be told, or well guessed, behind what the next push will come to lie."""
        return self.is_latest or (self._solitude.likely and not self._hot.model.layout.tables)

    def landed(self) -> None:
        """A push lies where it was foreseen to."""
        self._solitude.note()

    def doubt(self) -> None:
        """Something went wrong on the way to the log or back: whoever looks next asks the server."""
        self._latest_in = None
        self._solitude.wrong()
        self._doubts += 1

    async def commit(self, drafts: Sequence[Draft]) -> list[Answer | GradledgerError] | None:
        """See `Hot.commit`; None, and nothing done, if it is none of this."""
        hot, small = self._hot, all(draft.record.payload.nbytes <= SMALL_BYTES for draft in drafts)
        if not small or len(drafts) > AT_ONCE or not hot.model.small or not hot.lock.take():
            return None
        try:
            if any(draft.objection(hot.model) for draft in drafts):
                return None  # another replica may have made it right
            laps, since = [draft.laps for draft in drafts], self.since
            end_all(laps, "queue")
            results = await self._log.append(hot.epoch, [draft.wish() for draft in drafts])
            end_all(laps, "append")
            if self._follow(results):
                answers = hot.conclude(drafts, results)
                self._solitude.note(len(drafts))
                self.rely_on(since)
                return answers
            self.doubt()
            # Not on the replica's threads: all of them may be waiting for the lock that is held here.
            return await asyncio.to_thread(hot.conclude, drafts, results)
        except BaseException:
            self.doubt()
            raise
        finally:
            hot.lock.give()

    async def look(self) -> Published | None:
        """See `Hot.look`; None if it takes longer."""
        if self.is_latest:
            return self._hot.published
        if not self._hot.lock.take():
            return None
        try:
            since = self.since
            head = await self._log.head(self._hot.epoch)
            if head is None or head.chain != self._hot.playback.chain:
                return None
            self.rely_on(since)
            self._hot.playback.note_saved(head.saved)
            return self._hot.published
        finally:
            self._hot.lock.give()

    def _follow(self, results: Sequence[Outcome]) -> bool:
        """Whether all is appended right behind the state as it is, so that nothing has to be read."""
        offsets = [result.offset for result in results if isinstance(result, Appended)]
        playback = self._hot.playback
        first = playback.applied + 1
        return not playback.broken and offsets == list(range(first, first + len(results)))

    @property
    def since(self) -> tuple[int | None, int]:
        """The tenure, and how many doubts there were so far: to be told with what is learned from now on."""
        return self._log.tenure, self._doubts

    def rely_on(self, since: tuple[int | None, int]) -> None:
        """What is published was the log's end since then, and is, unless something went wrong meanwhile."""
        tenure, doubts = since
        if doubts == self._doubts:
            self._latest_in = tenure
